#![cfg(test)]
//! The binary as its users see it: exit code, stdout, stderr.

#[path = "cli/check.rs"]
mod check;
#[cfg(target_os = "linux")]
#[path = "cli/containers.rs"]
mod containers;
#[cfg(unix)]
#[path = "cli/demo.rs"]
mod demo;
#[cfg(unix)]
#[path = "cli/deployment.rs"]
mod deployment;
#[cfg(target_os = "linux")]
#[path = "cli/docs.rs"]
mod docs;
#[path = "cli/doctor.rs"]
mod doctor;
#[cfg(unix)]
#[path = "cli/embedded.rs"]
mod embedded;
#[path = "cli/engines.rs"]
mod engines;
#[cfg(unix)]
#[path = "cli/engines_watch.rs"]
mod engines_watch;
#[cfg(all(unix, feature = "etcd"))]
#[path = "cli/etcd.rs"]
mod etcd;
#[cfg(unix)]
#[path = "cli/examples.rs"]
mod examples;
#[path = "cli/explain.rs"]
mod explain;
#[cfg(unix)]
#[path = "cli/failover.rs"]
mod failover;
#[cfg(target_os = "linux")]
#[path = "cli/files.rs"]
mod files;
#[path = "cli/fix.rs"]
mod fix;
#[cfg(target_os = "linux")]
#[path = "cli/flood.rs"]
mod flood;
#[path = "cli/free_port.rs"]
mod free_port;
#[path = "cli/http.rs"]
mod http;
#[path = "cli/jws.rs"]
mod jws;
#[path = "cli/key.rs"]
mod key;
#[cfg(unix)]
#[path = "cli/library.rs"]
mod library;
#[cfg(target_os = "linux")]
#[path = "cli/log.rs"]
mod log;
#[cfg(target_os = "linux")]
#[path = "cli/memory.rs"]
mod memory;
#[cfg(unix)]
#[path = "cli/modules.rs"]
mod modules;
#[path = "cli/one_side.rs"]
mod one_side;
#[cfg(unix)]
#[path = "cli/one_spelling.rs"]
mod one_spelling;
#[cfg(target_os = "linux")]
#[path = "cli/one_way.rs"]
mod one_way;
#[path = "cli/operate.rs"]
mod operate;
#[path = "cli/pair.rs"]
mod pair;
#[path = "cli/pair_tls.rs"]
mod pair_tls;
#[cfg(target_os = "linux")]
#[path = "cli/pem_pipes.rs"]
mod pem_pipes;
#[cfg(unix)]
#[path = "cli/printed.rs"]
mod printed;
#[path = "cli/promises.rs"]
mod promises;
#[cfg(unix)]
#[path = "cli/prune.rs"]
mod prune;
#[cfg(unix)]
#[path = "cli/registry_file.rs"]
mod registry_file;
#[path = "cli/reload.rs"]
mod reload;
#[cfg(unix)]
#[path = "cli/remedies.rs"]
mod remedies;
#[cfg(unix)]
#[path = "cli/replace.rs"]
mod replace;
#[path = "cli/replicas.rs"]
mod replicas;
#[path = "cli/revoke.rs"]
mod revoke;
#[cfg(unix)]
#[path = "cli/revoke_watch.rs"]
mod revoke_watch;
#[path = "cli/rotate.rs"]
mod rotate;
#[cfg(unix)]
#[path = "cli/rotate_tls.rs"]
mod rotate_tls;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/settings_page.rs"]
mod settings_page;
#[path = "cli/snapshots.rs"]
mod snapshots;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/terminals.rs"]
mod terminals;
#[path = "cli/token.rs"]
mod token;
#[cfg(target_os = "linux")]
#[path = "cli/two_hosts.rs"]
mod two_hosts;
#[path = "cli/usage.rs"]
mod usage;
