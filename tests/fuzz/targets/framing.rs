#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchkeep_agent::logs::fuzz::framing(data));
