#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidegate::identity::fuzz::spiffe_id(data));
