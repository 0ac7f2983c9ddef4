//! What is read from etcd is believed only as far as the deployment signed it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/laws/etcd_law.rs"]
mod etcd_law;

fuzz_target!(|bytes: &[u8]| etcd_law::etcd_record(bytes));
