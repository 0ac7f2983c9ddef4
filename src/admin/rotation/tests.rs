use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::replace::{Replacement, Request};
use super::*;
use crate::admin::deployments::trusting_too;
use crate::admin::error::Kind;
use crate::admin::pairing::{self, Member, Options};
use crate::admin::write::kill;
use crate::clock::{Clock as _, SystemClock};
use crate::config::check;
use crate::config::names::KEYS;
use crate::diagnostic::Code;
use crate::identity::{Environment, ModuleType};
use crate::jose::{KeyId, PublicJwk, SigningKey};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";

/// Pairs two modules in `folder`, whose files have comments and line ends of their own.
fn pair(folder: &Path) {
    let texts = [
        "# our DPM\r\n\r\nserver.port = 8031\r\nlast=1",
        "#DPE\nb=2\n\n",
    ];
    let members = [("dpm", DPM, texts[0]), ("dpe", DPE, texts[1])];
    let members = members.map(|(module, file, text)| {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        Member::new(ModuleType::new(module).unwrap(), path)
    });
    let options = Options {
        environment: Some(Environment::new("dev").unwrap()),
        ..Options::default()
    };
    pairing::plan(&members, None, &options)
        .unwrap()
        .change
        .carry_out()
        .unwrap();
}

fn read(folder: &Path) -> Rotation {
    Rotation::read(&[folder.join(DPE)], &[folder.join(DPM)]).unwrap()
}

fn take(folder: &Path, step: Step) {
    let plan = read(folder).plan(step, SystemClock.now()).unwrap();
    plan.change.carry_out().unwrap();
}

fn texts(folder: &Path) -> [String; 2] {
    [DPM, DPE].map(|file| fs::read_to_string(folder.join(file)).unwrap())
}

/// Returns what each module's file says of the other's keys: names, and whether they are revoked.
fn keys(folder: &Path) -> Vec<(String, bool)> {
    let rotation = read(folder);
    let keys = &rotation.deployment(&rotation.peers[0]).unwrap().keys;
    keys.iter()
        .map(|key| (key.name.clone(), key.revoked))
        .collect()
}

fn errors(folder: &Path) -> usize {
    let files = [folder.join(DPM), folder.join(DPE)];
    check(&files, &[]).unwrap().findings.errors()
}

#[test]
fn three_steps_change_the_key_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let [dpm, dpe] = texts(folder.path());
    let old = read(folder.path()).key().fingerprint();

    let mut phases = Vec::new();
    for step in [Step::Prepare, Step::Activate, Step::Finish] {
        take(folder.path(), step);
        assert_eq!(errors(folder.path()), 0, "{step:?}");
        phases.push(read(folder.path()).phase());
    }

    assert_eq!(phases, [Phase::Prepared, Phase::Activated, Phase::Idle]);
    assert_ne!(read(folder.path()).key().fingerprint(), old);
    let ours = [("key".to_owned(), true), ("key2".to_owned(), false)];
    assert_eq!(keys(folder.path()), ours);
    let [peer_after, after] = texts(folder.path());
    let revoked = dpm.replace("is-revoked=false", "is-revoked=true");
    assert!(peer_after.starts_with(&revoked), "{peer_after}");
    assert_eq!(peer_after.lines().count(), dpm.lines().count() + 3);
    assert_eq!(
        peer_after.matches('\n').count(),
        peer_after.matches("\r\n").count()
    );
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("generator.key="));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(&after), lines(&dpe));
}

#[test]
fn new_keys_show_when_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let before = SystemClock.now() - Duration::from_secs(1);
    pair(folder.path());
    let first = read(folder.path()).key().made_at().unwrap();
    assert!((before..=SystemClock.now()).contains(&first), "{first:?}");

    let day = Duration::from_secs(86_400);
    let step = |step, days| {
        let plan = read(folder.path()).plan(step, before + day * days).unwrap();
        plan.change.carry_out().unwrap();
    };
    step(Step::Prepare, 1);
    step(Step::Activate, 2);

    let second = read(folder.path()).key().made_at().unwrap();
    // In whole seconds.
    let age = (before + day).duration_since(second).unwrap();
    assert!(age < Duration::from_secs(1), "{age:?}");
}

#[test]
fn a_step_that_is_done_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    for step in [Step::Abort, Step::Prepare, Step::Activate, Step::Finish] {
        take(folder.path(), step);
        let stamp = |file| {
            fs::metadata(folder.path().join(file))
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = ([DPM, DPE].map(stamp), texts(folder.path()));

        let plan = read(folder.path()).plan(step, SystemClock.now()).unwrap();
        plan.change.carry_out().unwrap();

        assert!(plan.change.is_empty(), "{step:?}");
        assert_eq!(([DPM, DPE].map(stamp), texts(folder.path())), before);
    }
}

#[test]
fn an_aborted_rotation_leaves_the_files_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let before = texts(folder.path());

    take(folder.path(), Step::Prepare);
    assert_ne!(texts(folder.path()), before);
    take(folder.path(), Step::Abort);

    assert_eq!(texts(folder.path()), before);
}

#[test]
fn steps_out_of_turn_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let refused = |step| match read(folder.path()).plan(step, SystemClock.now()) {
        Err(error) => match error.kind() {
            Kind::OutOfTurn(first) => *first,
            other => panic!("{step:?}: {other:?}"),
        },
        other => panic!("{step:?}: {other:?}"),
    };

    assert_eq!(refused(Step::Activate), Step::Prepare);
    take(folder.path(), Step::Prepare);
    assert_eq!(refused(Step::Finish), Step::Activate);
    take(folder.path(), Step::Activate);
    assert_eq!(refused(Step::Prepare), Step::Finish);
    assert_eq!(refused(Step::Abort), Step::Finish);
}

#[test]
fn a_second_engine_s_key_under_the_same_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let other = SigningKey::generate().unwrap();
    let rotation = read(folder.path());
    let peer = &rotation.peers[0];
    let deployment = rotation.deployment(peer).unwrap();
    let id = KeyId::from(other.fingerprint());
    let settings = trusting_too(deployment, other.verifying_key(), &id);
    peer.change(peer.edited(&settings).unwrap())
        .unwrap()
        .carry_out()
        .unwrap();

    for step in [Step::Prepare, Step::Activate, Step::Finish] {
        take(folder.path(), step);
    }

    let ours = [("key", true), ("key2", false), ("key3", false)];
    let ours = ours.map(|(name, revoked)| (name.to_owned(), revoked));
    assert_eq!(keys(folder.path()), ours);
}

#[test]
fn the_old_key_goes_when_its_last_token_can_have_expired() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    for (file, line) in [
        (DPM, "\r\ncountersign.token.leeway=40s\r\n"),
        (
            DPE,
            "ataccama.authentication.internal.jwt.generator.token-expiration=100\n\
             countersign.token.max-lifetime=700\n",
        ),
    ] {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap() + line;
        fs::write(&path, text).unwrap();
    }
    assert_eq!(read(folder.path()).finish_after(), None);
    let at = UNIX_EPOCH + Duration::from_millis(1_800_000_000_500);
    take(folder.path(), Step::Prepare);

    read(folder.path())
        .plan(Step::Activate, at)
        .unwrap()
        .change
        .carry_out()
        .unwrap();

    let after = read(folder.path()).finish_after().unwrap();
    let wait = |after: SystemTime| after.duration_since(at).unwrap().as_secs();
    // The peer accepts tokens of 900 s; the module may have issued such with what its file said.
    assert_eq!(wait(after), 900 + 40 + 2);
    let path = folder.path().join(DPM);
    let text = fs::read_to_string(&path).unwrap() + "countersign.token.max-lifetime=60\r\n";
    fs::write(&path, text).unwrap();
    let after = read(folder.path()).finish_after().unwrap();
    // A peer whose file is not here may accept what the module's own file does.
    assert_eq!(wait(after), 700 + 40 + 2);
}

#[test]
fn every_peers_file_must_trust_the_next_key() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let other = folder.path().join("other.properties");
    let peers = [folder.path().join(DPM), other.clone()];
    fs::copy(&peers[0], &other).unwrap();
    let phase = || {
        let rotation = Rotation::read(&[folder.path().join(DPE)], &peers);
        rotation.unwrap().phase()
    };

    take(folder.path(), Step::Prepare);
    assert_eq!(phase(), Phase::Preparing, "absent in one file");

    let [trusting, _] = texts(folder.path());
    let revoking = trusting.replace("key2.is-revoked=false", "key2.is-revoked=true");
    assert_ne!(revoking, trusting);
    fs::write(&other, revoking).unwrap();
    assert_eq!(phase(), Phase::Preparing, "revoked in one file");

    fs::write(&other, trusting).unwrap();
    assert_eq!(phase(), Phase::Prepared);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let (dpm, dpe) = (folder.path().join(DPM), folder.path().join(DPE));
    let stranger = folder.path().join("stranger");
    pair(&stranger);
    let own = [dpe];

    let twice = Rotation::read(&own, &own);
    let foreign = Rotation::read(&own, &[stranger.join(DPM)]).unwrap();
    let foreign = foreign.plan(Step::Prepare, SystemClock.now());
    fs::write(&dpm, "ataccama.one.platform.deployments.x.modul=dpe\n").unwrap();
    let faulty = Rotation::read(&own, &[dpm]);

    let (twice, foreign) = (twice.unwrap_err(), foreign.unwrap_err());
    assert!(matches!(twice.kind(), Kind::Usage), "{twice:?}");
    assert!(twice.to_string().ends_with("is named twice"), "{twice}");
    assert!(matches!(foreign.kind(), Kind::Conflict), "{foreign:?}");
    let wanted = "does not trust this module's key";
    assert!(foreign.to_string().contains(wanted), "{foreign}");
    let faulty = faulty.unwrap_err();
    assert!(matches!(faulty.kind(), Kind::Unreadable), "{faulty:?}");
    assert!(faulty.findings.errors() > 0, "{faulty:?}");
}

/// The step that a child is to take is in a file, since its arguments are the harness's.
const STEP: &str = "step";
const REPLACE: &str = "replace";

/// Gives the engine another key in place of all that it has.
fn replace(folder: &Path) {
    let request = Request {
        owners: vec![folder.join(DPE)],
        peers: vec![folder.join(DPM)],
        name: None,
        one_side: false,
    };
    let plan = Replacement::plan(&request, SystemClock.now()).unwrap();
    plan.change.carry_out().unwrap();
}

#[test]
fn replacement_ends_a_rotation_in_every_phase_with_one_key_that_is_trusted() {
    for before in [
        &[][..],
        &[Step::Prepare],
        &[Step::Prepare, Step::Activate],
        &[Step::Prepare, Step::Activate, Step::Finish],
    ] {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path());
        for step in before {
            take(folder.path(), *step);
        }
        let had = keys(folder.path()).len();

        replace(folder.path());

        assert_eq!(errors(folder.path()), 0, "{before:?}");
        let after = read(folder.path());
        assert_eq!(after.phase(), Phase::Idle, "{before:?}");
        let state = after.state();
        assert!(state.next.is_none() && state.activated_at.is_none() && state.previous.is_empty());
        let revoked: Vec<_> = keys(folder.path()).iter().map(|key| key.1).collect();
        let expected: Vec<_> = (0..=had).map(|at| at < had).collect();
        assert_eq!(revoked, expected, "{before:?}");
    }
}

#[test]
fn replacement_that_is_killed_between_any_two_writes_is_completed_by_the_next() {
    let set_up = |folder: &Path| {
        pair(folder);
        let own = fs::read_to_string(folder.join(DPE)).unwrap();
        let lines = own.lines().filter(|line| !line.contains("generator.key="));
        let lost: Vec<_> = lines.collect();
        fs::write(folder.join(DPE), lost.join("\n") + "\n").unwrap();
        fs::write(folder.join(STEP), REPLACE).unwrap();
    };
    let look = |folder: &Path, at: u32| {
        replace(folder);
        assert_eq!(errors(folder), 0, "{at}");
        let all = keys(folder);
        let trusted = all.iter().filter(|(_, revoked)| !revoked).count();
        assert_eq!(trusted, 1, "{at}: {all:?}");
    };

    let killed = kill::at_every_point("admin::rotation::tests::child", set_up, look);

    assert!(killed > 6, "it was killed {killed} times");
}

#[test]
#[ignore = "is run by another test, which kills it"]
fn child() {
    let folder = kill::folder().unwrap();
    let steps = [Step::Prepare, Step::Activate, Step::Finish, Step::Abort];
    let name = fs::read_to_string(folder.join(STEP)).unwrap();
    if name == REPLACE {
        replace(&folder);
        return;
    }
    take(
        &folder,
        steps
            .into_iter()
            .find(|step| step.as_str() == name)
            .unwrap(),
    );
}

/// Returns every file of settings below `folder`, with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("storage") {
            // What the home remembers of revoked keys.
        } else if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != ".countersign.lock" {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn killed_between_any_two_writes_a_step_leaves_a_common_key_and_is_completed() {
    for (step, before, writes) in [
        (Step::Prepare, &[][..], 2),
        (Step::Activate, &[Step::Prepare], 1),
        (Step::Finish, &[Step::Prepare, Step::Activate], 2),
        (Step::Abort, &[Step::Prepare], 2),
    ] {
        let set_up = |folder: &Path| {
            pair(folder);
            for step in before {
                take(folder, *step);
            }
            fs::write(folder.join(STEP), step.as_str()).unwrap();
        };
        let look = |folder: &Path, at: u32| {
            // Both parse, and each trusts the key that the other signs with.
            assert_eq!(errors(folder), 0, "{step:?} {at}");
            take(folder, step);
            let after = read(folder);
            assert_eq!(after.phase(), step.ends_in(), "{step:?} {at}");
            assert_eq!(errors(folder), 0, "{step:?} {at}");
            // What was left lying about is gone.
            let names: Vec<_> = files(folder).into_keys().collect();
            let expected = [DPE, DPM, STEP].map(|name| folder.join(name));
            assert_eq!(names, expected, "{step:?} {at}");
        };

        let killed = kill::at_every_point("admin::rotation::tests::child", set_up, look);

        assert!(killed > writes * 3, "{step:?} was killed {killed} times");
    }
}

#[test]
fn eighth_active_key_of_a_module_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    let rotation = read(folder.path());
    let deployment = rotation.deployment(&rotation.peers[0]).unwrap();
    let six: Vec<_> = (0..6)
        .flat_map(|n| {
            let key = SigningKey::generate().unwrap();
            let kid = KeyId::new(&key.fingerprint().to_string()).unwrap();
            let content = PublicJwk::write(key.verifying_key(), &kid);
            let below = format!("{KEYS}.more{n}").replace("<name>", deployment.name.as_str());
            [
                format!("{below}.fingerprint={kid}\r\n"),
                format!("{below}.content={content}\r\n"),
                format!("{below}.is-revoked=false\r\n"),
            ]
        })
        .collect();
    let file = folder.path().join(DPM);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "\r\n" + &six.concat()).unwrap();
    let before = texts(folder.path());

    let refused = read(folder.path()).plan(Step::Prepare, SystemClock.now());

    let refused = refused.err().unwrap();
    assert!(matches!(refused.kind(), Kind::Conflict), "{refused:?}");
    let mut codes = refused.findings.iter().map(|found| found.code);
    assert!(codes.any(|code| code == Code::Cs0309), "{refused:?}");
    assert_eq!(texts(folder.path()), before);
}

#[test]
fn a_plan_that_another_file_overrides_meanwhile_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pair(folder);
    let main = folder.join(DPE);
    let text = fs::read_to_string(&main).unwrap() + "spring.profiles.active=dev\n";
    fs::write(&main, text).unwrap();
    let plan = read(folder).plan(Step::Prepare, SystemClock.now()).unwrap();
    let before = texts(folder);
    let profile = main.with_file_name("application-dev.properties");
    fs::write(&profile, "countersign.rotation.next-key=other\n").unwrap();

    let refused = plan.change.carry_out().unwrap_err();

    let decides = format!("{}:1:1 decides", profile.display());
    assert!(refused.to_string().contains(&decides), "{refused}");
    assert_eq!(texts(folder), before);
}
