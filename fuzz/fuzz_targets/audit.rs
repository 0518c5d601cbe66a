#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidegate::telemetry::audit::fuzz::audit(data));
