mod expiry;
mod logged;
mod revocations;

use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::time::Instant;

use super::follower::{Applied, Follower, Looked, Read};
use super::{Reloader, Unsettled};
use crate::clock::SystemClock;
use crate::config::question::Question;
use crate::config::rules::keys::OWN_KEY;
use crate::config::spring;
use crate::config::tests::spring::{MAIN, rows_of_the_manual, written};
use crate::config::tests::{D, Folder, deployment, good, key, kid, own_line};
use crate::config::{ModuleKind, Settings};
use crate::grpc::Module;
use crate::jose::{KeyId, PrivateJwk, SigningKey};
use crate::properties::FileText;
use crate::registry::AddressBook;
use crate::storage::revoked_keys::Remembered;
use crate::telemetry::{Format, capture};
use crate::trust::KeySet;

const FILE: &str = "dpm/etc/application.properties";
const PROFILE: &str = "dpm/etc/application-prod.properties";

/// A module and the follower of its file, which the test looks with.
struct World {
    folder: Folder,
    module: Module,
    addresses: AddressBook,
    follower: Follower,
    question: Arc<Question>,
}

impl World {
    fn new(text: &str) -> Self {
        Self::with(text, &[], &[])
    }

    fn with(text: &str, environment: &[(&str, &str)], sets: &[(&str, &str)]) -> Self {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let folder = Folder::new();
        folder.write(FILE, text);
        let home = folder.path().join("dpm");
        let sets = owned(sets);
        let settings = Settings::load(&home, &ModuleKind::Dpm, owned(environment), &sets);
        let settings = settings.unwrap();
        let module = settings.module().unwrap();
        let addresses = AddressBook::new(settings.options.addresses.clone());
        Self {
            follower: Follower::new(&settings, &module, addresses.clone()),
            question: Arc::clone(&settings.source.question),
            folder,
            module,
            addresses,
        }
    }

    /// A module that starts with what the files hold now.
    fn restarted(self) -> Self {
        let home = self.folder.path().join("dpm");
        let settings = Settings::load(&home, &ModuleKind::Dpm, Vec::new(), &[]).unwrap();
        let module = settings.module().unwrap();
        Self {
            follower: Follower::new(&settings, &module, self.addresses.clone()),
            module,
            ..self
        }
    }

    fn look(&mut self, text: impl AsRef<[u8]>) -> Looked {
        self.folder.write(FILE, text);
        self.follower.look(false)
    }

    #[track_caller]
    fn applied(&mut self, text: impl AsRef<[u8]>) -> Applied {
        match self.look(text) {
            Looked::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn failed(&mut self, text: impl AsRef<[u8]>) -> (String, bool) {
        match self.look(text) {
            Looked::Failed { error, is_news } => (error, is_news),
            other => panic!("{other:?}"),
        }
    }

    /// Has the follower take `bytes` for the file's content, without the waiting.
    fn step(&mut self, bytes: &[u8]) -> Looked {
        let text = FileText::from_bytes(bytes).unwrap();
        let file = self.folder.path().join(FILE);
        let home = crate::config::Home::new(&file);
        self.follower.step(Read {
            remembered: home.remembered(),
            texts: Ok(spring::read_around(&file, text, &self.question)),
            tls: self.module.tls_files.read(),
        })
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.follower.tick();
        }
    }

    fn trust(&self) -> Arc<KeySet> {
        self.module.trust().load()
    }

    /// Returns `true` if a token of `key` could be accepted.
    fn accepts(&self, key: &SigningKey) -> bool {
        let trust = self.trust();
        let found = trust.find(kid(key).as_str());
        found.is_some_and(|found| !found.key.revoked)
    }
}

/// What Spring Boot would apply and a start refuses, a reload refuses.
#[test]
fn every_refused_row_of_the_manual_keeps_what_is_applied() {
    let good = good();
    let rows = rows_of_the_manual().into_iter();
    let refused: Vec<_> = rows.filter(|row| row["refused"].is_string()).collect();
    let mut reloaded = 0;
    for row in &refused {
        let folder = Folder::new();
        folder.write(MAIN, &good);
        // Where the environment is at fault, there is no start.
        let other = Folder::new();
        let environment = written(row, &other, &good);
        let loaded = Settings::load(folder.path(), &ModuleKind::Dpm, environment, &[]);
        let Ok(settings) = loaded else { continue };
        let module = settings.module().unwrap();
        let mut follower = Follower::new(&settings, &module, AddressBook::default());
        let before = module.trust().load();
        written(row, &folder, &good);

        let looked = follower.look_after(false, || ());

        assert!(matches!(looked, Looked::Failed { .. }), "{row}\n{looked:?}");
        assert!(Arc::ptr_eq(&before, &module.trust().load()), "{row}");
        reloaded += 1;
    }
    assert!(reloaded >= 30, "{reloaded} of {}", refused.len());
}

#[test]
fn files_that_did_not_change_since_the_start_are_not_news() {
    let mut world = World::new(&good());

    assert!(matches!(world.follower.look(false), Looked::Same));
    assert!(matches!(world.follower.look(false), Looked::Same));
    assert!(matches!(world.follower.look(true), Looked::Applied(_)));
}

#[test]
fn change_between_the_start_and_the_first_look_is_seen() {
    let text = good();
    let mut world = World::new(&text);
    let more = key();

    let applied = world.applied(text + &deployment("dpe-two", "dpe", &more));

    assert_eq!(applied.changes.len(), 1, "{applied:?}");
    assert!(world.accepts(&more));
}

#[test]
fn everything_that_decides_trust_changes_at_once_and_is_named() {
    let (old, new) = (key(), key());
    let (gone, stays, comes) = (key(), key(), key());
    let file = |own: &SigningKey| own_line(own);
    let before =
        file(&old) + &deployment("gone", "dpe", &gone) + &deployment("stays", "dpe", &stays);
    let mut world = World::new(&before);
    let trust = world.trust();
    let of_stays = deployment("stays", "dpe", &stays)
        .replace("is-revoked=false", "is-revoked=true")
        .replace("roles[0]=IMPERSONATION", "roles=IMPERSONATION,READER");
    let rules = "countersign.deployments.stays.allow-low-ports=true\n\
                 countersign.deployments.stays.single-use-tokens=true\n";

    let after = file(&new) + &of_stays + &deployment("comes", "dpe", &comes) + rules;
    let applied = world.applied(after + "countersign.deployment.name=dpm-dev\n");

    let expected = [
        format!("own key {} → {}", kid(&old), kid(&new)),
        "own name added: dpm-dev".to_owned(),
        "roles of stays [IMPERSONATION] → [IMPERSONATION, READER]".to_owned(),
        "single-use-tokens of stays false → true".to_owned(),
        format!("key `key` {} of stays trusted → revoked", kid(&stays)),
        format!(
            "deployment comes added: module dpe, environment dev, roles [IMPERSONATION], \
             single-use-tokens false, tls-keys [], key `key` {} trusted",
            kid(&comes)
        ),
        "deployment gone removed".to_owned(),
        "addresses allowed for stays".to_owned(),
    ];
    assert_eq!(applied.changes, expected);
    assert_eq!(applied.restart, None);
    let now = world.trust();
    assert_eq!(now.own().fingerprint(), new.fingerprint());
    assert_eq!(now.own().accepted, [old.fingerprint()]);
    assert!(world.accepts(&comes) && !world.accepts(&gone) && !world.accepts(&stays));
    assert!(world.addresses.rules_of("stays").allow_low_ports);
    // A holder of the old set still has it whole.
    assert!(trust.find(kid(&gone).as_str()).is_some());
}

#[test]
fn pem_files_are_part_of_what_is_applied_or_not() {
    let server = "ataccama.server.grpc.tls";
    let lines = format!(
        "{server}.enabled=true\n{server}.cert-chain=a.pem\n{server}.private-key=a-key.pem\n\
         ataccama.client.connection.dpe.grpc.tls.enabled=false\n"
    );
    let folder = Folder::new();
    let home = folder.path().join("dpm");
    folder.certificate("dpm/a");
    let (text, more) = (good() + &lines, key());
    folder.write(FILE, &text);
    let settings = Settings::load(&home, &ModuleKind::Dpm, [], &[]).unwrap();
    let module = settings.module().unwrap();
    let mut follower = Follower::new(&settings, &module, AddressBook::default());
    let tls = module
        .server_tls(settings.options.tls.server.options.unwrap())
        .unwrap();
    let first = tls.current();
    assert!(matches!(follower.look(false), Looked::Same));
    assert!(
        follower.names().contains("a-key.pem"),
        "{}",
        follower.names()
    );

    // A new certificate with the old key changes nothing, and neither does what comes with it.
    let key_file = home.join("a-key.pem");
    let old_key = std::fs::read(&key_file).unwrap();
    folder.certificate("dpm/a");
    let new_key = std::fs::read(&key_file).unwrap();
    folder.write("dpm/a-key.pem", old_key);
    folder.write(FILE, text + &deployment("more", "mmm", &more));
    let Looked::Failed { error, .. } = follower.look(false) else {
        panic!("the key of another certificate");
    };
    assert!(error.contains("does not belong to"), "{error}");
    assert!(module.trust().load().find(kid(&more).as_str()).is_none());
    assert!(Arc::ptr_eq(&first, &tls.current()));
    assert!(matches!(follower.look(false), Looked::Same));

    folder.write("dpm/a-key.pem", new_key);
    let Looked::Applied(applied) = follower.look(false) else {
        panic!("both are replaced");
    };
    assert_eq!(applied.changes.len(), 2, "{applied:?}");
    assert!(module.trust().load().find(kid(&more).as_str()).is_some());
    assert!(!Arc::ptr_eq(&first, &tls.current()));
    assert!(matches!(follower.look(false), Looked::Same));
}

#[test]
fn environment_called_none_is_a_change() {
    let (own, peer) = (key(), key());
    let text = own_line(&own) + &deployment("dpe-dev", "dpe", &peer);
    let environment = "ataccama.one.platform.deployments.dpe-dev.environment=dev\n";
    assert!(text.contains(environment));
    let mut world = World::new(&text.replace(environment, ""));

    let applied = world.applied(text.replace("environment=dev", "environment=none"));

    assert_eq!(applied.changes, ["environment of dpe-dev added: none"]);
}

#[test]
fn keys_are_reported_by_what_became_of_them() {
    let (own, first, second) = (own_line(&key()), key(), key());
    let two = |revoked: &str| {
        let other =
            deployment("dpe-dev", "dpe", &second).replace("jwt-keys.key.", "jwt-keys.next.");
        let other = other.lines().filter(|line| line.contains("jwt-keys"));
        let other: Vec<_> = other.collect();
        let other = other.join("\n").replace("is-revoked=false", revoked);
        own.clone() + &deployment("dpe-dev", "dpe", &first) + &other + "\n"
    };
    let mut world = World::new(&(own.clone() + &deployment("dpe-dev", "dpe", &first)));
    let (first_id, second_id) = (kid(&first), kid(&second));

    let mut reported = |text: String| world.applied(text).changes;

    assert_eq!(
        reported(two("is-revoked=true")),
        [format!("key `next` {second_id} of dpe-dev added: revoked")]
    );
    let renamed = two("is-revoked=true").replace("jwt-keys.next", "jwt-keys.key2");
    assert_eq!(
        reported(renamed),
        [
            format!("key `key2` {second_id} of dpe-dev added: revoked"),
            format!("key `next` {second_id} of dpe-dev removed")
        ]
    );
    let only = own.clone() + &deployment("dpe-dev", "dpe", &second);
    let gone = reported(only);
    assert!(
        gone.contains(&format!("key `key` {first_id} of dpe-dev removed")),
        "{gone:?}"
    );
}

#[test]
fn file_with_an_error_changes_nothing_and_is_news_once() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    let before = world.trust();
    let bad = text.clone() + &deployment("dpe-two", "dpe", &more) + "countersign.nonsense=1\n";

    let (error, is_news) = world.failed(&bad);
    assert!(is_news);
    assert!(error.contains("CS0106"), "{error}");
    assert!(error.contains("application.properties:14:1"), "{error}");
    let (_, is_news_again) = world.failed(bad.clone() + "\n");
    assert!(is_news_again);
    let Looked::Failed { is_news: asked, .. } = world.follower.look(true) else {
        panic!("no answer");
    };
    assert!(!asked);
    assert!(Arc::ptr_eq(&before, &world.trust()));

    let repaired = world.applied(&text);
    assert!(repaired.changes.is_empty(), "{repaired:?}");
    assert!(world.failed(&bad).1);
}

#[test]
fn file_that_is_gone_or_cannot_be_read_keeps_what_is_applied() {
    let mut world = World::new(&good());
    let before = world.trust();
    let path = world.folder.path().join(FILE);

    std::fs::remove_file(&path).unwrap();
    let Looked::Failed { error, is_news } = world.follower.look(false) else {
        panic!("not noticed");
    };
    assert!(is_news && error.contains("no such file"), "{error}");
    assert!(matches!(world.follower.look(false), Looked::Same));
    std::fs::create_dir(&path).unwrap();
    let Looked::Failed { error, is_news } = world.follower.look(false) else {
        panic!("not noticed");
    };
    assert!(is_news && error.contains("directory"), "{error}");

    assert!(Arc::ptr_eq(&before, &world.trust()));
}

#[test]
fn a_file_that_could_not_be_read_for_a_moment_is_read_again() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    assert!(matches!(world.follower.look(false), Looked::Same));
    world.applied(text + &deployment("dpe-two", "dpe", &more));
    world.ticks(8);
    world.follower.look(false);

    let file = world.folder.path().join("is-not-there");
    let failed = world.follower.step(Read {
        remembered: Ok(Remembered::default()),
        texts: Err(FileText::read(&file).unwrap_err()),
        tls: world.module.tls_files.read(),
    });

    assert!(matches!(failed, Looked::Failed { .. }), "{failed:?}");
    assert!(matches!(world.follower.look(false), Looked::Same));
    world.ticks(4);
    let looked = world.follower.look(false);
    assert!(matches!(looked, Looked::Applied(_)), "{looked:?}");
    world.ticks(4);
    assert!(matches!(world.follower.look(false), Looked::Same));
}

#[test]
fn a_change_that_stamps_do_not_show_is_seen_for_2_s_after_another() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    let whole = text.clone() + &deployment("dpe-two", "dpe", &more);
    world.applied(&whole);

    // As if the file had changed once more, on a file system whose clock is coarse.
    for _twice in 0..2 {
        world.step(text.as_bytes());
        assert!(matches!(world.follower.look(false), Looked::Same));
        world.ticks(4);
        assert!(matches!(world.follower.look(false), Looked::Applied(_)));
        assert!(world.accepts(&more));
    }

    world.ticks(12);
    assert!(matches!(world.follower.look(false), Looked::Same));
    world.step(text.as_bytes());
    world.ticks(12);
    assert!(matches!(world.follower.look(false), Looked::Same));
}

#[test]
fn a_new_file_that_cannot_be_read_is_reported() {
    let mut world = World::new(&(good() + "spring.profiles.active=prod\n"));
    assert!(matches!(world.follower.look(false), Looked::Same));

    std::fs::create_dir(world.folder.path().join(PROFILE)).unwrap();

    let looked = world.follower.look(false);
    assert!(matches!(looked, Looked::Failed { .. }), "{looked:?}");
}

#[test]
fn another_kid_of_a_key_is_named_beside_other_changes() {
    let (own, peer) = (key(), key());
    let text = own_line(&own) + &deployment("dpe-dev", "dpe", &peer);
    let mut world = World::new(&text);

    let named = text
        .replace(kid(&peer).as_str(), "my-free-kid")
        .replace("roles[0]=IMPERSONATION", "roles[0]=OTHER");
    let changes = world.applied(&named).changes;

    let expected = [
        "roles of dpe-dev [IMPERSONATION] → [OTHER]".to_owned(),
        format!(
            "key `key` {} of dpe-dev trusted → trusted, kid `my-free-kid`",
            kid(&peer)
        ),
    ];
    assert_eq!(changes, expected);
    let jwk = PrivateJwk::write(&own, &KeyId::new("my-own-kid").unwrap());
    let own_line = format!("{OWN_KEY}={}\n", BASE64_STANDARD.encode(jwk.expose()));
    let (_, peers) = named.split_once('\n').unwrap();
    let changes = world.applied(own_line + peers).changes;
    let fingerprint = own.fingerprint();
    assert_eq!(
        changes,
        [format!(
            "own key {fingerprint} → {fingerprint}, kid `my-own-kid`"
        )]
    );
}

#[test]
fn profiles_come_and_go_but_the_file_of_an_active_one_must_not_vanish() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    let active = text.clone() + "spring.profiles.active=dev\n";
    assert!(world.applied(&active).changes.is_empty());
    assert_eq!(world.follower.names().matches("application").count(), 2);

    let profile = "dpm/etc/application-dev.properties";
    let peer = deployment("dpe-two", "dpe", &more);
    world.folder.write(profile, &peer);
    assert!(matches!(world.follower.look(false), Looked::Applied(_)));
    assert!(world.accepts(&more));
    world
        .folder
        .write(profile, peer + "countersign.nonsense=1\n");
    let Looked::Failed { error, .. } = world.follower.look(false) else {
        panic!("not noticed");
    };
    assert!(error.contains("application-dev.properties:7:1"), "{error}");

    std::fs::remove_file(world.folder.path().join(profile)).unwrap();
    let Looked::Failed { error, .. } = world.follower.look(false) else {
        panic!("not noticed");
    };
    assert!(error.contains("no longer exists"), "{error}");
    assert!(world.accepts(&more));
    let inactive = world.applied(&text);
    assert_eq!(inactive.changes, ["deployment dpe-two removed"]);
    assert_eq!(inactive.restart, None);
}

#[test]
fn file_that_is_being_written_is_left_for_a_later_look() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    let path = world.folder.path().join(FILE);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let whole = text + &deployment("dpe-two", "dpe", &more);
    let (ready, begun) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(whole.as_bytes()).unwrap();
        ready.send(()).unwrap();
        for written in 1_u64.. {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            file.write_all(b"#\n").unwrap();
            // A file may have 131,072 lines.
            if written.is_multiple_of(100_000) {
                file.set_len(whole.len() as u64).unwrap();
                file.seek(SeekFrom::End(0)).unwrap();
            }
        }
    });
    begun.recv().unwrap();

    let meanwhile = world.follower.look(true);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(matches!(meanwhile, Looked::Unsettled), "{meanwhile:?}");
    assert!(!world.accepts(&more));

    assert!(matches!(world.follower.look(false), Looked::Applied(_)));
    assert!(world.accepts(&more));
}

#[test]
fn settings_that_need_a_restart_are_named_once() {
    let text = good();
    let mut world = World::new(&text);
    let leeway = text.clone() + "countersign.token.leeway=10s\n";

    let first = world.applied(&leeway);
    let again = world.applied(leeway.clone() + "# a comment\n");
    let more = world.applied(leeway + "ataccama.server.grpc.port=9000\n");
    let back = world.applied(&text);

    let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(first.restart, named(&["countersign.token.leeway"]));
    assert_eq!(again.restart, None);
    let both = ["ataccama.server.grpc.port", "countersign.token.leeway"];
    assert_eq!(more.restart, named(&both));
    assert_eq!(back.restart, None);
    let waiting = [first, again, more, back].map(|applied| applied.waiting);
    assert_eq!(waiting, [1, 1, 2, 0]);
    assert_eq!(world.module.policy(), crate::token::Policy::default());
}

#[test]
fn environment_and_options_stand_above_a_changed_file_as_at_the_start() {
    let variable = "ATACCAMA_ONE_PLATFORM_DEPLOYMENTS_DPEDEV_SECURITY_ROLES";
    let text = good();
    let mut world = World::with(&text, &[(variable, "IMPERSONATION,FROM_ENVIRONMENT")], &[]);

    let applied = world.applied(text.replace("roles[0]=IMPERSONATION", "roles[0]=OTHER"));

    assert!(applied.changes.is_empty(), "{applied:?}");
    let trust = world.trust();
    let roles = &trust.deployment("dpe-dev").unwrap().roles;
    assert_eq!(roles.to_string(), "[IMPERSONATION, FROM_ENVIRONMENT]");
}

#[test]
fn next_key_is_accepted_in_audiences_before_and_after_it_signs() {
    let (old, next) = (key(), key());
    let peer = deployment("dpe-dev", "dpe", &key());
    let next_line = own_line(&next).replace(
        "ataccama.authentication.internal.jwt.generator.key",
        "countersign.rotation.next-key",
    );
    let mut world = World::new(&(own_line(&old) + &peer));

    let prepared = world.applied(own_line(&old) + &peer + &next_line);
    assert_eq!(
        prepared.changes,
        [format!("next key added: {}", next.fingerprint())]
    );
    assert_eq!(world.trust().own().accepted, [next.fingerprint()]);

    let activated = world.applied(own_line(&next) + &peer);
    let own = format!("own key {} → {}", old.fingerprint(), next.fingerprint());
    assert_eq!(activated.changes, [own, "next key removed".to_owned()]);
    let own = world.module.own();
    assert_eq!(
        (own.fingerprint(), &*own.accepted),
        (next.fingerprint(), &[old.fingerprint()][..])
    );
}

#[test]
fn files_that_never_settle_are_reported_once_and_again_after_they_did() {
    let mut unsettled = Unsettled::default();
    let start = Instant::now();
    let mut reported = |seconds: f64| unsettled.go_on(start + Duration::from_secs_f64(seconds));

    let first: Vec<_> = [0.0, 2.5, 4.9, 5.0, 5.1, 60.0].map(&mut reported).to_vec();
    assert_eq!(first, [false, false, false, true, false, false]);
    assert!(unsettled.end());
    assert!(!unsettled.end());

    let mut reported = |seconds: f64| unsettled.go_on(start + Duration::from_secs_f64(seconds));
    assert_eq!([61.0, 65.9, 66.0].map(&mut reported), [false, false, true]);
}

#[test]
fn files_that_settle_now_and_then_are_not_reported() {
    let mut unsettled = Unsettled::default();
    let start = Instant::now();
    for second in 0..60 {
        assert!(!unsettled.go_on(start + Duration::from_secs(second)));
        if second % 4 == 3 {
            assert!(!unsettled.end());
        }
    }
}

#[test]
fn a_file_that_is_renamed_into_place_at_every_look_counts_at_once() {
    let text = good();
    let mut world = World::new(&text);
    let file = world.folder.path().join(FILE);
    let peers: Vec<_> = (0..5).map(|_| key()).collect();
    for (number, peer) in peers.iter().enumerate() {
        let whole = text.clone() + &deployment(&format!("dpe-{number}"), "dpe", peer);
        world.folder.write(FILE, whole);
        let next = world
            .folder
            .write("dpm/etc/next", text.clone() + "# next\n");

        let looked = world
            .follower
            .look_after(false, || std::fs::rename(next, &file).unwrap());

        assert!(matches!(looked, Looked::Applied(_)), "{looked:?}");
        assert!(world.accepts(peer));
        assert!(matches!(world.follower.look(false), Looked::Applied(_)));
    }
}

#[test]
fn a_file_that_is_written_in_place_during_a_look_does_not_count_yet() {
    let (text, more) = (good(), key());
    let mut world = World::new(&text);
    let whole = text + &deployment("dpe-two", "dpe", &more);
    world.folder.write(FILE, &whole);

    let looked = world.follower.look_after(false, || {
        world.folder.write(FILE, whole.clone() + "# more\n");
    });

    assert!(matches!(looked, Looked::Unsettled), "{looked:?}");
    assert!(!world.accepts(&more));
    assert!(matches!(world.follower.look(false), Looked::Applied(_)));
    assert!(world.accepts(&more));
}

#[test]
fn another_modules_file_is_refused_and_the_old_trust_kept() {
    let peer = key();
    let named = |own: &SigningKey, name: &str| {
        own_line(own) + &format!("countersign.deployment.name={name}\n")
    };
    let own = key();
    let text = named(&own, "dpm-dev") + &deployment("dpe-dev", "dpe", &peer);
    let mut world = World::new(&text);
    let before = world.trust();

    let other = named(&key(), "dpe-dev") + &deployment("dpm-dev", "dpm", &key());
    let (error, _) = world.failed(other);
    assert!(error.contains("another module"), "{error}");
    let (error, _) = world.failed(text.replace("countersign.deployment.name=dpm-dev\n", ""));
    assert!(error.contains("from dpm-dev to none"), "{error}");
    let (error, _) = world.failed(named(&key(), "dpm-dev") + &deployment("dpe-dev", "dpe", &key()));
    assert!(error.contains("at once"), "{error}");
    assert!(Arc::ptr_eq(&before, &world.trust()));

    // A rotation, and a file without deployments.
    world.applied(named(&key(), "dpm-dev") + &deployment("dpe-dev", "dpe", &peer));
    assert!(
        !world
            .applied(named(&key(), "dpm-dev") + &deployment("dpe-dev", "dpe", &peer))
            .is_alone
    );
}

#[test]
fn a_file_without_deployments_takes_effect_with_a_warning() {
    let (own, peer) = (own_line(&key()), key());
    let mut world = World::new(&(own.clone() + &deployment("dpe-dev", "dpe", &peer)));

    let applied = world.applied(own);

    assert!(applied.is_alone);
    assert!(!world.accepts(&peer));
    let (log, lines) = capture::subscriber(Format::Json, Arc::new(SystemClock));
    tracing::dispatcher::with_default(&log, || super::log("the files", &applied));
    let line = lines.take().concat();
    assert!(
        line.contains("configReloaded") && line.contains("WARN"),
        "{line}"
    );
}
