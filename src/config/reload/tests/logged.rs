//! What log and health say of looks at the files.

use super::*;

#[tokio::test(start_paused = true)]
async fn files_that_are_written_without_pause_are_reported_and_shown_until_they_stand_still() {
    let world = World::new(&good());
    let settings = Settings::load(
        &world.folder.path().join("dpm"),
        &ModuleKind::Dpm,
        Vec::new(),
        &[],
    );
    let reloader = Reloader::new(&settings.unwrap(), &world.module);
    let (log, lines) = capture::subscriber(Format::Json, Arc::new(SystemClock));
    let mut unsettled = Unsettled::default();
    let mut report = |looked: Looked| {
        tracing::dispatcher::with_default(&log, || {
            reloader.report(&looked, "the files", false, &mut unsettled);
        });
    };
    let shown = || {
        let health = world.module.health().current();
        let part = health
            .parts()
            .iter()
            .find(|part| part.name == "configReload")
            .unwrap();
        (part.up, part.detail.to_string())
    };
    let failed = || {
        let error = "CS0106".to_owned();
        Looked::Failed {
            error,
            is_news: true,
        }
    };

    for settled in [Looked::Same, failed(), Looked::Same] {
        let before = shown();
        report(Looked::Unsettled);
        tokio::time::advance(Duration::from_millis(4_999)).await;
        report(Looked::Unsettled);
        assert_eq!((shown(), lines.take().len()), (before.clone(), 0));
        tokio::time::advance(Duration::from_millis(1)).await;
        report(Looked::Unsettled);
        report(Looked::Unsettled);

        let reported = lines.take();
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(
            reported[0].contains("\"eventId\":\"configUnsettled\""),
            "{reported:?}"
        );
        let (up, detail) = shown();
        assert!(!up && detail.contains("without pause"), "{detail}");
        let expected = match &settled {
            Looked::Failed { error, .. } => (false, error.clone()),
            _ if before.0 => (true, "the files are applied".to_owned()),
            _ => before,
        };
        report(settled);
        assert_eq!(shown(), expected);
        lines.take();
    }
}

#[tokio::test(start_paused = true)]
async fn health_says_that_settings_wait_for_a_restart() {
    let world = World::new(&good());
    let home = world.folder.path().join("dpm");
    let settings = Settings::load(&home, &ModuleKind::Dpm, Vec::new(), &[]).unwrap();
    let reloader = Reloader::new(&settings, &world.module);
    let mut unsettled = Unsettled::default();
    let mut shown = |looked: Looked| {
        reloader.report(&looked, "the files", false, &mut unsettled);
        let health = world.module.health().current();
        let mut parts = health.parts().iter();
        let part = parts.find(|part| part.name == "configReload").unwrap();
        (part.up, part.detail.to_string())
    };
    let but = "the files are applied; settings that need a restart: 1";
    let applied = Applied {
        waiting: 1,
        ..Applied::default()
    };

    assert_eq!(shown(Looked::Applied(applied)), (true, but.to_owned()));
    shown(Looked::Unsettled);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(!shown(Looked::Unsettled).0);
    assert_eq!(shown(Looked::Same), (true, but.to_owned()));
}
