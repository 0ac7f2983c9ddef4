//! Long work on one thread that lets others work.
//!
//! Where all processors are busy, a thread goes on for milliseconds before another has its turn, and a
//! call that arrives while a file of a thousand deployments is read waits as long.

use std::thread;

/// Lets other threads go first after so many steps.
#[derive(Debug)]
pub struct Turns {
    every: usize,
    left: usize,
}

impl Turns {
    /// Gives way after every so many steps.
    pub fn new(every: usize) -> Self {
        Self { every, left: every }
    }

    /// Notes a step.
    pub fn step(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = self.every;
            thread::yield_now();
        }
    }

    /// Goes through `items`, each of which is a step.
    pub fn through<I: IntoIterator>(mut self, items: I) -> impl Iterator<Item = I::Item> {
        items.into_iter().inspect(move |_| self.step())
    }
}
