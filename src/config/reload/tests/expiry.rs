//! What log and metrics say of the module's own certificates.

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::reload::changes::Expiry;

/// 3030-01-01, when the certificates expire.
const END: u64 = 33_450_364_800;
const DAY: Duration = Duration::from_secs(86_400);
const SERVER: &str = "ataccama.server.grpc.tls";

/// A module with a certificate of its server, and the settings that name it.
struct Shown {
    clock: Arc<ManualClock>,
    module: Module,
    settings: Settings,
    fingerprint: String,
    folder: Folder,
}

impl Shown {
    /// Starts 31 days before the end, less an hour.
    fn new() -> Self {
        let folder = Folder::new();
        let fingerprint = folder.certificate_with("dpm/a", |params| {
            params.not_after = rcgen::date_time_ymd(3030, 1, 1);
        });
        let text = good()
            + &format!(
                "{SERVER}.enabled=true\n{SERVER}.cert-chain=a.pem\n{SERVER}.private-key=a-key.pem\n"
            );
        let settings = load(&folder, &text);
        let clock = Arc::new(ManualClock::at_unix(END - 31 * 86_400 + 3_600));
        let used: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let module = Module::builder(settings.own.clone()).clock(used);
        Self {
            module: module.build().unwrap(),
            clock,
            settings,
            fingerprint,
            folder,
        }
    }
}

fn load(folder: &Folder, text: &str) -> Settings {
    folder.write(FILE, text);
    let home = folder.path().join("dpm");
    Settings::load(&home, &ModuleKind::Dpm, [], &[]).unwrap()
}

#[test]
fn certificate_expires_is_logged_once_a_day_from_30_days_on() {
    let shown = Shown::new();
    let mut expiry = Expiry::of(shown.settings.options.tls.clone(), &shown.module);
    let (log, lines) = capture::subscriber(Format::Json, Arc::new(SystemClock));
    let mut logged = |later: Duration| {
        shown.clock.advance(later);
        tracing::dispatcher::with_default(&log, || {
            expiry.note(&shown.module);
            expiry.note(&shown.module);
        });
        lines.take()
    };

    assert!(logged(Duration::ZERO).is_empty());
    for (later, days) in [
        (DAY, 29),
        (DAY, 28),
        (28 * DAY, 0),
        (DAY, -1),
        (10 * DAY, -11),
    ] {
        let said = logged(later);
        let [line] = said.as_slice() else {
            panic!("{days}: {said:?}");
        };
        let fingerprint = format!("\"fingerprint\":\"{}\"", shown.fingerprint);
        let left = format!("\"daysLeft\":{days}");
        for part in [
            "\"eventId\":\"certificateExpires\"",
            "\"use\":\"server\"",
            "\"notAfter\":\"3030-01-01T00:00:00Z\"",
            &fingerprint,
            &left,
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(logged(Duration::ZERO).is_empty());
    }
}

#[test]
fn expiry_is_a_metric_by_use() {
    let shown = Shown::new();
    let name = "countersign_tls_certificate_expiry_timestamp_seconds";
    let series = || {
        let text = shown.module.metrics_text();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    assert!(series().is_empty());
    Expiry::of(shown.settings.options.tls.clone(), &shown.module);
    assert_eq!(series(), [format!("{name}{{use=\"server\"}} {END}")]);
    // Without TLS there is no certificate.
    let plain = load(&shown.folder, &good());
    Expiry::of(plain.options.tls, &shown.module);
    assert!(series().is_empty());
}
