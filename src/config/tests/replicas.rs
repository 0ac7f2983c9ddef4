//! Files of replicas: one DPM, whose engines are in etcd.

use super::*;

use crate::diagnostic::Severity::Error;

const ETCD: &str = "countersign.registry.url=etcd://localhost:2379,localhost:2380\n";
const NAME: &str = "countersign.deployment.name=dpm-dev\n";

/// Checks the files of two replicas; returns the findings but those that a build without etcd has.
fn found(first: &str, second: &str) -> Vec<(Code, String)> {
    let folder = Folder::new();
    let paths = [folder.write("one", first), folder.write("two", second)];
    let report = check(&paths, &[]).unwrap();
    let all = report.findings.iter();
    let own = all.filter(|found| !is_of_build(found));
    let rows = own.map(|found| {
        assert_eq!(found.severity, Error, "{found}");
        (found.code, found.message.clone())
    });
    rows.collect()
}

fn replica(own: &SigningKey, peers: &str) -> String {
    own_line(own) + NAME + ETCD + peers
}

#[test]
fn replicas_may_share_a_key_and_others_may_not() {
    let (own, peers) = (key(), deployment("dpe-dev", "dpe", &key()));
    let file = replica(&own, &peers);
    let other_order = file.replace(
        "localhost:2379,localhost:2380",
        "localhost:2380,localhost:2379",
    );

    assert_eq!(found(&file, &file), []);
    assert_eq!(found(&file, &other_order), []);
    for other in [
        file.replace("dpm-dev", "dpm-other"),
        file.replace(":2380", ":2381"),
        file.replace(",localhost:2380", ""),
        file.replace(ETCD, ""),
    ] {
        let found = found(&file, &other);
        assert!(
            found.iter().any(|(code, _)| *code == Code::Cs0404),
            "{found:?}"
        );
    }
}

#[test]
fn replicas_that_differ_in_keys_trust_or_names_are_reported() {
    let (own, peer, other) = (key(), key(), key());
    let peers = deployment("dpe-dev", "dpe", &peer);
    let file = replica(&own, &peers);
    let next = own_line(&other).replace(KEY, "countersign.rotation.next-key");
    let pin = kid(&other);
    let pinned = format!("countersign.deployments.dpe-dev.tls-keys.key.fingerprint={pin}\n");
    for (code, part, changed) in [
        (Code::Cs0401, "signs with", replica(&other, &peers)),
        (Code::Cs0401, "another next key", file.clone() + &next),
        (
            Code::Cs0401,
            "does not trust this key",
            replica(&own, &deployment("dpe-dev", "dpe", &other)),
        ),
        (
            Code::Cs0401,
            "does not trust dpe-2",
            file.clone() + &deployment("dpe-2", "dpe", &other),
        ),
        (
            Code::Cs0402,
            "as revoked",
            file.replace("is-revoked=false", "is-revoked=true") + &deployment_key(&other),
        ),
        (
            Code::Cs0403,
            "another module",
            file.replace("module=dpe", "module=ledger"),
        ),
        (
            Code::Cs0403,
            "another environment",
            file.replace("environment=dev", "environment=test"),
        ),
        (
            Code::Cs0303,
            "other roles",
            file.clone() + D + ".dpe-dev.security.roles[1]=X\n",
        ),
        (Code::Cs0405, "does not pin", file.clone() + &pinned),
    ] {
        assert_reported([&file, &changed], (code, part));
    }
}

#[test]
fn replicas_that_differ_in_what_they_accept_are_reported() {
    let peers = deployment("dpe-dev", "dpe", &key());
    let file = replica(&key(), &peers);
    let renamed = file.replace("name=dpm-dev", "name=DPM-dev");
    let spelling = "another spelling of `countersign.deployment.name`";
    assert_reported([&file, &renamed], (Code::Cs0403, spelling));
    let own = "countersign";
    let of_peer = "countersign.deployments.dpe-dev";
    for (part, (place, line)) in [
        ("`countersign.token.replay`", (own, "token.replay=strict")),
        ("times of tokens", (own, "token.leeway=10s")),
        ("limits of engines", (own, "registry.max-engines=10")),
        ("`single-use-tokens`", (of_peer, "single-use-tokens=true")),
        (
            "`allowed-addresses`",
            (of_peer, "allowed-addresses=10.0.0.0/8"),
        ),
        ("`allow-low-ports`", (of_peer, "allow-low-ports=true")),
    ] {
        let changed = format!("{file}{place}.{line}\n");
        assert_reported([&file, &changed], (Code::Cs0306, part));
    }
}

/// Checks that a difference between `files` is reported once, whichever comes first.
fn assert_reported([file, changed]: [&str; 2], (code, part): (Code, &str)) {
    for (one, two) in [(file, changed), (changed, file)] {
        let found = found(one, two);

        let wanted = found
            .iter()
            .filter(|(known, text)| *known == code && text.contains(part));
        // Each of two keys is missing in the other file.
        let expected = if part == "does not trust this key" {
            2
        } else {
            1
        };
        assert_eq!(wanted.count(), expected, "{part}: {found:?}");
        assert!(
            found.iter().all(|(code, _)| *code != Code::Cs0404),
            "{found:?}"
        );
    }
}

/// Another key of `dpe-dev`.
fn deployment_key(key: &SigningKey) -> String {
    let lines = deployment("dpe-dev", "dpe", key);
    let key = lines.lines().filter(|line| line.contains(".jwt-keys."));
    key.map(|line| line.replacen(".jwt-keys.key.", ".jwt-keys.other.", 1) + "\n")
        .collect()
}

#[test]
fn replicas_are_compared_with_their_peers_as_one_module() {
    let (own, peer) = (key(), key());
    let first = replica(&own, &deployment("dpe-dev", "dpe", &peer));
    let engine = own_line(&peer) + &deployment("dpm-dev", "dpm", &own);
    let folder = Folder::new();
    let files = [("one", first.clone()), ("two", first), ("dpe", engine)];
    let paths = files.map(|(name, text)| folder.write(name, text));

    let report = check(&paths, &[]).unwrap();

    let mut others = report.findings.iter();
    assert!(others.all(is_of_build), "{:?}", report.findings);
}
