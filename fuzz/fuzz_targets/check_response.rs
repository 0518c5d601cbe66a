#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| filter_authorization::fuzz_check_response(data));
