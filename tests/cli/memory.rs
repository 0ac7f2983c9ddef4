//! What a process holds in memory: no key that was replaced, and at a reload little more than its file.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::jose::{KeyId, PublicJwk, SigningKey};
use countersign::{ModuleKind, Reloader, Settings};
use tokio::time::Instant;

use super::modules::{ANY_PORT, Running, paired};
use super::revoke::{DPE, DPM};
use super::support::Folder;

const OWN: &str = "ataccama.authentication.internal.jwt.generator.key=";

/// Every form of the private key in the file: the scalar in both orders of bytes, base64url, and
/// the base64 of the whole key as the file has it.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(OWN))
        .unwrap();
    let json = BASE64_STANDARD.decode(line).unwrap();
    let jwk: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let private = jwk["d"].as_str().unwrap();
    let scalar = BASE64_URL_SAFE_NO_PAD.decode(private).unwrap();
    let at = json
        .windows(5)
        .position(|five| five == b"\"d\":\"")
        .unwrap();
    let part = (at + 5).div_ceil(3) * 4..(at + 47) / 3 * 4;
    let written = line.get(part).unwrap();
    vec![
        scalar.iter().rev().copied().collect(),
        scalar,
        private.as_bytes().to_vec(),
        written.as_bytes().to_vec(),
    ]
}

/// Counts the `needles` that are in the writable memory of a process; `None` if it cannot be read.
fn found(pid: u32, needles: &[Vec<u8>]) -> Option<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut is_found = vec![false; needles.len()];
    for map in maps.lines().filter(|map| map.contains(" rw")) {
        let (start, end) = map.split_once(' ')?.0.split_once('-')?;
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = Vec::new();
        let read = memory
            .seek(SeekFrom::Start(start))
            .and_then(|_| memory.by_ref().take(end - start).read_to_end(&mut bytes));
        if read.is_err() {
            continue;
        }
        for (needle, is_found) in needles.iter().zip(&mut is_found) {
            *is_found |= bytes.windows(needle.len()).any(|window| window == needle);
        }
    }
    Some(is_found.into_iter().filter(|found| *found).count())
}

/// Replaces the key of the module `pid` by a rotation's first two steps, awaits with `applied` that
/// it counts, and searches for the old one.
fn is_forgotten(folder: &Folder, pid: u32, applied: impl FnOnce()) {
    let old = forms(&folder.read(DPM));
    match found(pid, &old) {
        None => {
            println!("skipped: the memory of another process cannot be read here");
            return;
        }
        Some(count) => assert!(count > 0, "the search does not find the key that signs"),
    }
    let rotate = format!("--home {DPM} --peer-file {DPE} --yes");
    folder.run(&format!("rotate prepare {rotate}")).exits(0);
    folder
        .run(&format!("rotate activate {rotate} --offline"))
        .exits(0);
    applied();
    let since = Instant::now();
    let mut left = found(pid, &old).unwrap();
    while left > 0 && since.elapsed() < Duration::from_secs(5) {
        left = found(pid, &old).unwrap();
    }
    println!("gone after {:?}", since.elapsed());
    assert_eq!(
        left, 0,
        "forms of the replaced key that are still in memory"
    );
    assert!(found(pid, &forms(&folder.read(DPM))).unwrap() > 0);
}

#[test]
fn the_binary_forgets_a_replaced_key_within_five_seconds() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    dpm.until("startup");
    let pid = dpm.child.id();

    is_forgotten(&folder, pid, || {
        while !dpm.until("configReloaded").contains("own key ") {}
    });
}

const HOME: &str = "COUNTERSIGN_TEST_HOME";

/// A program with the library, which says when it has started and each time it has reloaded.
#[test]
#[ignore = "is run by another test"]
fn library() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    let executor = tokio::runtime::Runtime::new().unwrap();
    executor.block_on(async {
        let settings = Settings::load(Path::new(&home), &ModuleKind::Dpm, Vec::new(), &[]).unwrap();
        let module = settings.module().unwrap();
        let reloader = Reloader::new(&settings, &module);
        drop(settings);
        let before = module.own().fingerprint();
        let mut status = reloader.handle().status();
        tokio::spawn(reloader.run());
        fs::write(Path::new(&home).join("started"), "").unwrap();
        while module.own().fingerprint() == before {
            status.changed().await.unwrap();
        }
        fs::write(Path::new(&home).join("reloaded"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn the_library_forgets_a_replaced_key_within_five_seconds() {
    let folder = paired();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "memory::library",
            "--exact",
            "--ignored",
            "--test-threads=1",
        ])
        .env(HOME, folder.path("dpm"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let said = |name: &str| {
        let since = Instant::now();
        while !folder.path("dpm").join(name).exists() {
            assert!(since.elapsed() < Duration::from_secs(30), "not {name}");
            std::thread::yield_now();
        }
    };
    said("started");

    is_forgotten(&folder, child.id(), || said("reloaded"));

    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns a number of kilobytes that the system shows of a process.
fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

/// What is read of a file, and what is made of it, beside what is applied.
#[test]
fn a_reload_of_a_large_file_is_bounded_in_memory() {
    let folder = paired();
    let mut text = folder.read(DPM);
    for n in 0..1500 {
        let key = SigningKey::generate().unwrap();
        let kid = KeyId::from(key.fingerprint());
        let jwk = PublicJwk::write(key.verifying_key(), &kid);
        let start = format!("ataccama.one.platform.deployments.d{n}");
        let of_key = format!("{start}.security.jwt-keys.key");
        write!(
            text,
            "{start}.module=dpe\n{start}.security.roles[0]=IMPERSONATION\n\
             {of_key}.fingerprint={kid}\n{of_key}.content={jwk}\n{of_key}.is-revoked=false\n"
        )
        .unwrap();
    }
    folder.write(DPM, &text);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    dpm.until("startup");
    let pid = dpm.child.id();
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = status(pid, "VmRSS");

    folder.write(DPM, text.replace("d7.module=dpe", "d7.module=other"));
    dpm.until("configReloaded");

    let more = status(pid, "VmHWM") - before;
    let size = u64::try_from(text.len()).unwrap() / 1024;
    println!("{more} KB more for a file of {size} KB");
    assert!(more <= 18 * size, "{more} KB for a file of {size} KB");
}
