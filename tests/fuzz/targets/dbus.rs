#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchkeep_agent::dbus::fuzz::messages(data));
