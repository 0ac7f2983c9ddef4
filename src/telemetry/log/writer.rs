//! The threads that write the log: no call ever waits for an output.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::watch;

/// The log lines that were lost, over all outputs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// How many, since the start.
    pub lines: u64,
    /// The outputs that lose lines now, with the cause.
    pub failing: BTreeMap<&'static str, String>,
}

/// One output with a thread of its own, so that none waits for another. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    output: Output,
    orders: Sender<Order>,
}

/// What an output and its thread share.
#[derive(Clone, Debug)]
struct Output {
    name: &'static str,
    /// The bytes of the lines that are not yet written.
    waiting: Arc<AtomicUsize>,
    losses: watch::Sender<Losses>,
}

#[derive(Debug)]
enum Order {
    Write(String),
    /// Drop this: all orders before it are carried out.
    Finish(Sender<Infallible>),
}

/// How many bytes may wait for one output; what comes then is lost.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// What a line takes beside its text.
const OVERHEAD: usize = 64;

impl Writer {
    /// Starts the thread that passes each line to `sink`, which may block, and counts in `losses`
    /// what it cannot write.
    ///
    /// The thread ends with the last clone of this.
    ///
    /// # Errors
    ///
    /// When there is no thread.
    pub(super) fn start(
        name: &'static str,
        sink: impl FnMut(&str) -> io::Result<()> + Send + 'static,
        losses: watch::Sender<Losses>,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let waiting = Arc::default();
        let output = Output {
            name,
            waiting,
            losses,
        };
        let of_thread = output.clone();
        let named = thread::Builder::new().name("log-writer".to_owned());
        named.spawn(move || of_thread.carry_out(&received, sink))?;
        Ok(Self { output, orders })
    }

    /// Has `line` written, with a line end. Never waits.
    pub(super) fn write(&self, line: &str) {
        let cost = line.len() + 1 + OVERHEAD;
        let before = self.output.waiting.fetch_add(cost, Ordering::Relaxed);
        let has_room = before + cost <= MOST_BYTES;
        if !has_room
            || self
                .orders
                .send(Order::Write([line, "\n"].concat()))
                .is_err()
        {
            self.output.waiting.fetch_sub(cost, Ordering::Relaxed);
            self.output.lose("lines come faster than they are written");
        }
    }

    /// Drops `done` once all lines so far are written or lost.
    pub(super) fn finish(&self, done: Sender<Infallible>) {
        // Without a thread it is dropped at once.
        let _ = self.orders.send(Order::Finish(done));
    }
}

impl Output {
    fn carry_out(&self, received: &Receiver<Order>, mut sink: impl FnMut(&str) -> io::Result<()>) {
        for order in received {
            match order {
                Order::Finish(done) => drop(done),
                Order::Write(line) => {
                    match sink(&line) {
                        Ok(()) => self.works(),
                        Err(error) => self.lose(&error.to_string()),
                    }
                    let cost = line.len() + OVERHEAD;
                    self.waiting.fetch_sub(cost, Ordering::Relaxed);
                }
            }
        }
    }

    fn works(&self) {
        self.losses
            .send_if_modified(|losses| losses.failing.remove(self.name).is_some());
    }

    fn lose(&self, cause: &str) {
        self.losses.send_modify(|losses| {
            losses.lines = losses.lines.saturating_add(1);
            losses.failing.insert(self.name, cause.to_owned());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// An output that says what it is asked to write, and does it only once it is let.
    struct Gated {
        writer: Writer,
        asked: Receiver<String>,
        answer: SyncSender<io::Result<()>>,
        losses: watch::Receiver<Losses>,
    }

    fn gated(losses: &watch::Sender<Losses>) -> Gated {
        let (asked, ask) = channel();
        let (answer, answers) = sync_channel(1000);
        let sink = move |line: &str| {
            asked.send(line.to_owned()).unwrap();
            answers.recv().unwrap()
        };
        Gated {
            writer: Writer::start("gate", sink, losses.clone()).unwrap(),
            asked: ask,
            answer,
            losses: losses.subscribe(),
        }
    }

    impl Gated {
        fn finished(&self, within: Duration) -> bool {
            let (done, finished) = channel();
            self.writer.finish(done);
            let ended = finished.recv_timeout(within);
            ended == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        }
    }

    #[test]
    fn output_that_stalls_delays_neither_a_caller_nor_another_output() {
        let losses = watch::Sender::default();
        let (stalled, other) = (gated(&losses), gated(&losses));

        stalled.writer.write("one");
        assert_eq!(stalled.asked.recv_timeout(PATIENCE).unwrap(), "one\n");
        // Nothing takes this line off the thread, and this call returns.
        stalled.writer.write("two");
        other.writer.write("three");

        assert_eq!(other.asked.recv_timeout(PATIENCE).unwrap(), "three\n");
        assert!(!stalled.finished(Duration::from_millis(10)));
        stalled.answer.send(Ok(())).unwrap();
        assert_eq!(stalled.asked.recv_timeout(PATIENCE).unwrap(), "two\n");
        stalled.answer.send(Ok(())).unwrap();
        assert!(stalled.finished(PATIENCE));
        assert_eq!(*losses.borrow(), Losses::default());
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_the_oldest_are_kept() {
        let output = gated(&watch::Sender::default());
        let line = "x".repeat(100 * 1024);
        for _ in 0..30 {
            output.writer.write(&line);
        }

        // Twenty fit.
        let lost = output.losses.borrow().clone();
        assert_eq!(lost.lines, 10);
        let cause = lost.failing.get("gate").unwrap();
        assert_eq!(cause, "lines come faster than they are written");
        for _ in 0..20 {
            output.answer.send(Ok(())).unwrap();
        }
        assert!(output.finished(PATIENCE));
        output.writer.write("after");
        output.answer.send(Ok(())).unwrap();
        assert!(output.finished(PATIENCE));
        assert!(output.losses.borrow().failing.is_empty());
        assert_eq!(output.asked.try_iter().last().unwrap(), "after\n");
    }

    #[test]
    fn line_that_fails_is_lost_with_its_cause_until_a_line_is_written() {
        let output = gated(&watch::Sender::default());

        output
            .answer
            .send(Err(io::Error::other("disk full")))
            .unwrap();
        output.writer.write("lost");
        assert!(output.finished(PATIENCE));
        let lost = output.losses.borrow().clone();
        output.answer.send(Ok(())).unwrap();
        output.writer.write("kept");
        assert!(output.finished(PATIENCE));

        assert_eq!((lost.lines, &*lost.failing["gate"]), (1, "disk full"));
        let after = output.losses.borrow().clone();
        assert_eq!((after.lines, after.failing.len()), (1, 0));
    }
}
