//! HTTP/2 used against the server. After each, a valid call is answered.

use std::io::Write as _;
use std::time::Duration;

use super::process::{Homes, Process};
use super::wire::{
    ACK, CONTINUATION, DATA, EMPTY, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR,
    HEADERS, HEALTH, PING, RST_STREAM, Raw, SETTINGS, call, field, frame, request,
};

/// Runs `misbehave` against a DPM, then makes a valid call.
async fn survives(misbehave: impl FnOnce(&Process) + Send + 'static) {
    let homes = Homes::new();
    let dpm = homes.dpm(256, &[]);
    let dpm = tokio::task::spawn_blocking(move || {
        misbehave(&dpm);
        dpm
    });
    let dpm = dpm.await.unwrap();
    assert_eq!(dpm.who_am_i(&homes).await.unwrap(), "dpe-dev");
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        let mut flood = Vec::new();
        for n in 0..2_000 {
            let stream = 2 * n + 1;
            flood.extend(frame(HEADERS, END_HEADERS, stream, &request(HEALTH)));
            flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        raw.send(&flood);
        assert_eq!(raw.refused(), ENHANCE_YOUR_CALM);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cancels_at_once_leave_the_other_calls_alone() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        let mut burst = frame(HEADERS, END_HEADERS, 1, &request(HEALTH));
        for n in 1..=50 {
            let stream = 2 * n + 1;
            burst.extend(frame(HEADERS, END_HEADERS, stream, &request(HEALTH)));
            burst.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        burst.extend(frame(DATA, END_STREAM, 1, EMPTY));
        raw.send(&burst);
        let ended = raw.until(|frame| frame.goaway().is_some() || frame.ends(1));
        assert_eq!((ended.kind, ended.stream), (HEADERS, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_flood() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        let mut writer = raw.0.try_clone().unwrap();
        let flood = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(5_000);
        let writing = std::thread::spawn(move || writer.write_all(&flood));
        for _ in 0..=5_000 {
            raw.until(|frame| frame.kind == SETTINGS && frame.flags == ACK);
        }
        writing.join().unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_flood() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        let mut writer = raw.0.try_clone().unwrap();
        let flood = frame(PING, 0, 0, &[7; 8]).repeat(5_000);
        let writing = std::thread::spawn(move || writer.write_all(&flood));
        for _ in 0..5_000 {
            raw.until(|frame| frame.kind == PING && frame.flags == ACK);
        }
        writing.join().unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_data_frames() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        raw.send(&frame(HEADERS, END_HEADERS, 1, &request(HEALTH)));
        raw.send(&frame(DATA, 0, 1, &[]).repeat(3_000));
        assert_eq!(raw.refused(), ENHANCE_YOUR_CALM);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn continuation_flood() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        raw.send(&frame(HEADERS, 0, 1, &request(HEALTH)));
        let junk = field("x-junk", &"j".repeat(100)).repeat(100);
        raw.send(&frame(CONTINUATION, 0, 1, &junk).repeat(1_000));
        assert_eq!(raw.refused(), ENHANCE_YOUR_CALM);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_16_kib() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        let mut headers = request(HEALTH);
        headers.extend(field("x-junk", &"j".repeat(100)).repeat(150));
        let (first, rest) = headers.split_at(8 * 1024);
        raw.send(&frame(HEADERS, END_STREAM, 1, first));
        raw.send(&frame(CONTINUATION, END_HEADERS, 1, rest));
        let answer = raw.until(|frame| frame.stream == 1);
        assert_eq!(answer.kind, HEADERS);
        // `:status: 431`, its value in Huffman's code.
        let (status, _) = answer.payload.split_at(5);
        assert_eq!(status, [0x48, 0x83, 0x69, 0x90, 0xff]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn window_of_zero() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[0, 4, 0, 0, 0, 0]);
        for n in 0..100 {
            raw.send(&call(2 * n + 1));
        }
        // Replies begin, but no message may follow.
        for _ in 0..100 {
            raw.until(|frame| frame.kind == HEADERS);
        }
        raw.send(&frame(PING, 0, 0, &[1; 8]));
        let next = raw.until(|frame| frame.kind != SETTINGS);
        assert_eq!((next.kind, next.flags), (PING, ACK));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frame_longer_than_allowed() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        raw.send(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]);
        assert_eq!(raw.refused(), FRAME_SIZE_ERROR);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_longer_than_it_says() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        raw.send(&frame(HEADERS, END_HEADERS, 1, &request(HEALTH)));
        raw.send(&frame(DATA, END_STREAM, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1]));
        // A reply without a message: its headers are its trailers.
        let answer = raw.until(|frame| frame.stream == 1);
        assert_eq!(
            (answer.kind, answer.flags & END_STREAM),
            (HEADERS, END_STREAM)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_never_send_their_message() {
    survives(|dpm| {
        let mut raw = Raw::http2(dpm.address, &[]);
        for n in 0..100 {
            raw.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &request(HEALTH)));
            raw.send(&frame(DATA, 0, 2 * n + 1, &EMPTY[..3]));
        }
        raw.send(&frame(PING, 0, 0, &[1; 8]));
        raw.until(|frame| frame.kind == PING);
    })
    .await;
}

/// The server stops reading a peer that does not read, so that neither its memory nor its
/// processor is taken.
#[tokio::test(flavor = "multi_thread")]
async fn reader_that_never_reads() {
    survives(|dpm| {
        let before = dpm.memory();
        let raw = Raw::http2(dpm.address, &[]);
        raw.0
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let flood = frame(PING, 0, 0, &[7; 8]).repeat(4_000);
        let blocked = (0..1_000).any(|_| (&raw.0).write_all(&flood).is_err());
        assert!(blocked, "the server read 68 MB and was never read from");
        dpm.idles();
        let grown = dpm.memory().saturating_sub(before);
        assert!(grown < 8 * 1024, "grew by {grown} KiB");
    })
    .await;
}
