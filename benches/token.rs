//! What a token costs beside the bare signature check, measured in one run.
//!
//! `cargo bench --bench token` prints criterion's figures and then one line with the ratio: rounds
//! of both alternate, so that a machine whose speed drifts does not spoil it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench on its own keys"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use countersign::testing;
use countersign::token::{Accept, TokenVerifier};
use criterion::{Criterion, criterion_group};

struct Inputs {
    verifier: TokenVerifier,
    token: String,
    message: Vec<u8>,
    signature: Vec<u8>,
    point: Vec<u8>,
}

fn inputs() -> Inputs {
    let pair = testing::pair();
    let callee = testing::trusted(&pair.dpm.own());
    let token = pair
        .dpe
        .issuer()
        .issue(&callee)
        .unwrap()
        .expose()
        .to_owned();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let own = pair.dpe.own();
    let key = own.key.verifying_key();
    let coordinate = |text: String| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let inputs = Inputs {
        verifier: pair.dpm.verifier(),
        message: message.as_bytes().to_vec(),
        signature: BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(),
        point: [vec![4], coordinate(key.x()), coordinate(key.y())].concat(),
        token,
    };
    inputs
        .verifier
        .verify(&inputs.token, Accept::Peers)
        .unwrap();
    inputs.bare();
    inputs
}

impl Inputs {
    fn bare(&self) {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        key.verify(&self.message, &self.signature).unwrap();
    }
}

fn verify(criterion: &mut Criterion) {
    let inputs = inputs();
    let remembering = inputs.verifier.clone().with_cache(Arc::default());
    remembering.verify(&inputs.token, Accept::Peers).unwrap();
    let mut group = criterion.benchmark_group("token");
    group.bench_function("signature alone", |b| b.iter(|| black_box(&inputs).bare()));
    group.bench_function("verify", |b| {
        b.iter(|| {
            black_box(&inputs)
                .verifier
                .verify(&inputs.token, Accept::Peers)
                .unwrap()
        });
    });
    group.bench_function("verify again", |b| {
        b.iter(|| {
            remembering
                .verify(black_box(&inputs.token), Accept::Peers)
                .unwrap()
        });
    });
    group.finish();
}

fn issue(criterion: &mut Criterion) {
    let pair = testing::pair();
    let callee = testing::trusted(&pair.dpm.own());
    let issuer = pair.dpe.issuer();
    let mut group = criterion.benchmark_group("token");
    group.bench_function("issue", |b| {
        b.iter(|| issuer.issue(black_box(&callee)).unwrap());
    });
    group.finish();
}

fn time(rounds: u32, run: impl Fn()) -> Duration {
    let start = Instant::now();
    (0..rounds).for_each(|_| run());
    start.elapsed()
}

fn ratio() {
    let inputs = inputs();
    let mut ratios: Vec<f64> = (0..40)
        .map(|_| {
            let bare = time(100, || black_box(&inputs).bare());
            let whole = time(100, || {
                inputs
                    .verifier
                    .verify(black_box(&inputs.token), Accept::Peers)
                    .unwrap();
            });
            whole.as_secs_f64() / bare.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).unwrap();
    println!(
        "verify / bare signature check: {median:.3} (median of 40 alternating rounds; limit 1.15)"
    );
}

criterion_group!(benches, verify, issue);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    ratio();
}
