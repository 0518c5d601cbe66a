#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidegate::config::decode::fuzz_yaml(data));
