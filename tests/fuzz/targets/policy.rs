#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchkeep_agent::policy::fuzz::caps(data));
