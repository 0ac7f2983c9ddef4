//! The word with which a connection is refused.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admission::Crowding;

/// How long a peer may take to read why it is refused, and how much it may send meanwhile.
const PARTING: Duration = Duration::from_millis(250);
const MOST_BYTES: u64 = 4096;

/// How many peers are given that time at once.
const MOST: usize = 64;

/// An empty SETTINGS frame, then GOAWAY with `ENHANCE_YOUR_CALM` and its text's length left out.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Peers that are being refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(JoinSet<()>);

impl Refusals {
    /// Says why over HTTP/2, and closes the connection once that was read: at once, its unread
    /// bytes would destroy the word.
    pub(super) fn refuse(&mut self, mut tcp: TcpStream, crowding: &Crowding) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() >= MOST {
            return;
        }
        let text = format!("countersign: {crowding}; try again");
        let length = u32::try_from(8 + text.len()).unwrap_or_default();
        let [_, length @ ..] = length.to_be_bytes();
        let word = [&SETTINGS, &length[..], &GOAWAY, text.as_bytes()].concat();
        self.0.spawn(async move {
            let parting = async {
                tcp.write_all(&word).await?;
                tcp.shutdown().await?;
                copy(&mut tcp.take(MOST_BYTES), &mut sink()).await
            };
            // It is closed however that ends.
            let _ = timeout(PARTING, parting).await;
        });
    }
}
