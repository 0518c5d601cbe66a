#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidegate::identity::fuzz::sds_response(data));
