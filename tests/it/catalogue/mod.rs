//! The catalogue of bad inputs, section by section: one row per case, each with its one outcome,
//! at the port of a DPM (with a DPE's keys) and of a DPE (with a DPM's keys).
//!
//! Rows of raw HTTP/2 stand with the tests of the listener, those about files beside the code that
//! reads them.
#![expect(
    clippy::string_slice,
    clippy::too_many_lines,
    reason = "tables of cases, and ASCII texts cut short"
)]

mod algorithms;
mod callee;
mod calls;
mod compact;
mod header;
mod identity;
mod metadata;
mod owners;
mod payload;
mod peers;
mod roles;
mod row;
mod signature;
mod time;

use callee::Callee;
use peers::Peers;
use row::Row;

/// Makes one test a side for each section.
macro_rules! sections {
    ($($section:ident)*) => {
        mod at_the_dpm {
            $(#[tokio::test]
            async fn $section() {
                super::hold(super::Callee::dpm().await, super::$section::rows).await;
            })*
        }

        mod at_the_dpe {
            $(#[tokio::test]
            async fn $section() {
                super::hold(super::Callee::dpe().await, super::$section::rows).await;
            })*
        }
    };
}

sections! { algorithms compact header identity metadata owners payload roles signature time }

/// Sends every row of a section and names each that has another outcome than its own.
async fn hold(callee: Callee, rows: fn(&Peers) -> Vec<Row>) {
    let rows = rows(&callee.peers);
    let mut names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "a row's name stands twice");

    let mut faults = Vec::new();
    for row in rows {
        let status = callee.call(row.call).await;
        if let Err(fault) = row.outcome.check(&status) {
            faults.push(format!("{}: {fault}", row.name));
        }
    }

    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    callee.peers.canary.was_left_alone();
    callee.still_serves().await;
}
