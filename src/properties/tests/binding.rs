use std::time::Duration;

use crate::properties::bind::{self, TimeUnit};

#[test]
fn switches_are_read_as_spring_reads_them() {
    for (text, value) in [
        ("true", Some(true)),
        ("yes", Some(true)),
        ("on", Some(true)),
        ("1", Some(true)),
        ("false", Some(false)),
        ("no", Some(false)),
        ("off", Some(false)),
        ("0", Some(false)),
        ("TRUE", Some(true)),
        ("Off", Some(false)),
        ("  true \t", Some(true)),
        ("", None),
        ("t", None),
        ("y", None),
        ("2", None),
        ("maybe", None),
        ("true ## note", None),
        ("false # not revoked", None),
        ("\"false\"", None),
        ("fals", None),
    ] {
        assert_eq!(bind::switch(text).ok(), value, "{text:?}");
    }
}

#[test]
fn whole_numbers_are_read_as_spring_reads_them() {
    for (text, value) in [
        ("8531", Some(8531)),
        ("8531  ", Some(8531)),
        ("+5", Some(5)),
        ("0x2153", Some(8531)),
        ("0X10", Some(16)),
        ("#10", Some(16)),
        ("010", Some(10)),
        ("0", Some(0)),
        ("-0", Some(0)),
        ("", None),
        ("85x", None),
        ("1.5", None),
        ("1_000", None),
        ("-1", None),
        ("65536", None),
        ("99999999999999999999999", None),
        // Java also reads digits of other scripts; ours does not.
        ("٣", None),
    ] {
        assert_eq!(bind::integer(text, 0, 65535).ok(), value, "{text:?}");
    }
    assert_eq!(
        bind::integer("70000", 1, 65535).unwrap_err(),
        "is not between 1 and 65535"
    );
}

#[test]
fn durations_are_read_as_spring_reads_them() {
    let millis = Duration::from_millis;
    let seconds = Duration::from_secs;
    for (text, value) in [
        ("1s", Some(seconds(1))),
        ("10m", Some(seconds(600))),
        ("2d", Some(seconds(172_800))),
        ("65m", Some(seconds(3900))),
        ("PT15M", Some(seconds(900))),
        ("pt15m", Some(seconds(900))),
        ("P2DT3H4M0.5S", Some(millis(183_840_500))),
        ("200ms", Some(millis(200))),
        ("5us", Some(Duration::from_micros(5))),
        ("5NS", Some(Duration::from_nanos(5))),
        ("500", Some(millis(500))),
        (" 500 ", Some(millis(500))),
        ("1m30s", None),
        ("1 s", None),
        ("1w", None),
        ("1.5s", None),
        ("", None),
        ("s", None),
        ("P", None),
        ("PT", None),
        ("P1", None),
        ("PT1M1H", None),
        ("PTM", None),
        // Java reads negative durations; none of our settings can have one.
        ("-1s", None),
        ("-PT1S", None),
        ("PT-1S", None),
        ("99999999999999999999d", None),
        ("300000d", None),
    ] {
        let read = bind::duration(
            text,
            TimeUnit::Millis,
            Duration::ZERO,
            seconds(8_640_000_000),
        );
        assert_eq!(read.ok(), value, "{text:?}");
    }
    let bare = bind::duration("300", TimeUnit::Seconds, seconds(1), seconds(900));
    assert_eq!(bare, Ok(seconds(300)));
    assert_eq!(
        bind::duration("1d", TimeUnit::Seconds, seconds(1), seconds(900)).unwrap_err(),
        "is not between 1s and 900s"
    );
}

#[test]
fn sizes_are_read_as_spring_reads_them() {
    for (text, value) in [
        ("1GB", Some(1 << 30)),
        ("10MB", Some(10 << 20)),
        ("1 GB", Some(1 << 30)),
        ("512KB", Some(512 << 10)),
        ("7B", Some(7)),
        ("4194304", Some(4 << 20)),
        ("1gb", None),
        ("1G", None),
        ("1.5GB", None),
        ("", None),
        ("MB", None),
        ("-1MB", None),
        ("99999999999TB", None),
    ] {
        assert_eq!(bind::size(text, 0, 1 << 40).ok(), value, "{text:?}");
    }
}

#[test]
fn lists_are_split_at_commas_and_keep_empty_elements() {
    assert_eq!(bind::list("A, B"), ["A", "B"]);
    assert_eq!(bind::list("A, ,B,"), ["A", "", "B", ""]);
    assert_eq!(bind::list("A"), ["A"]);
    assert!(bind::list("").is_empty());
}

#[test]
fn words_are_compared_without_case_and_dashes() {
    let choices = [("handshake", 1), ("every-call", 2)];

    assert_eq!(bind::choice("EVERY_CALL ", &choices), Ok(2));
    assert_eq!(bind::choice("", &choices), Err("is empty".to_owned()));
    assert_eq!(
        bind::choice("never", &choices).unwrap_err(),
        "is not one of `handshake`, `every-call`"
    );
}
