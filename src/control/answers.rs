//! A worker's own answers about destinations: another connection to the same one asks nobody.
//!
//! They hold for no longer than the main thread would give them without asking again (see [`super::addresses`]).

use std::{cell::RefCell, collections::HashMap};

use tokio::time::Instant;

use super::{
    addresses::FRESH,
    directory::{Answer, Directory, Heard, Question},
};
use crate::error::Refusal;

/// Answers kept at a time.
const MAX_KEPT: usize = 1024;

/// Asks a [`Directory`], and keeps its answers for a moment.
#[derive(Debug)]
pub struct Answers {
    directory: Directory,
    kept: RefCell<HashMap<Question, Heard>>,
}

impl Answers {
    /// None yet.
    pub fn of(directory: Directory) -> Self {
        Self { directory, kept: RefCell::default() }
    }

    /// What a destination is; see [`Directory::resolve`].
    ///
    /// # Errors
    /// As those of [`Directory::resolve`].
    pub async fn resolve(&self, question: Question) -> Result<Option<Answer>, Refusal> {
        let now = Instant::now();
        let kept = self.kept.borrow().get(&question).filter(|heard| is_fresh(heard, now)).cloned();
        match kept {
            Some(heard) => Ok(heard.answer),
            None => self.ask(question, false).await,
        }
    }

    /// The same, where what was answered before has turned out to hold no more.
    ///
    /// # Errors
    /// As those of [`Directory::resolve`].
    pub async fn resolve_anew(&self, question: Question) -> Result<Option<Answer>, Refusal> {
        self.kept.borrow_mut().remove(&question);
        self.ask(question, true).await
    }

    async fn ask(&self, question: Question, anew: bool) -> Result<Option<Answer>, Refusal> {
        let heard = self.directory.hear(question.clone(), anew).await?;
        let (now, answer) = (Instant::now(), heard.answer.clone());
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MAX_KEPT && !kept.contains_key(&question) {
            kept.retain(|_, heard| is_fresh(heard, now));
            if kept.len() >= MAX_KEPT {
                // The main thread has them all.
                kept.clear();
            }
        }
        if is_fresh(&heard, now) {
            kept.insert(question, heard);
        }
        Ok(answer)
    }
}

fn is_fresh(heard: &Heard, now: Instant) -> bool {
    now.saturating_duration_since(heard.at) < FRESH
}

#[cfg(test)]
mod tests {
    use std::{
        rc::Rc,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Duration,
    };

    use super::*;
    use crate::control::directory::Wish;

    /// Answers that nothing is known, so long ago; counts the questions.
    fn answers(age: Duration) -> (Rc<Answers>, Arc<AtomicUsize>) {
        let (directory, mut wishes) = Directory::new(Duration::from_secs(1));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Some(Wish::Resolve(ask)) = wishes.recv().await {
                count.fetch_add(1, Relaxed);
                let _ = ask.reply.send(Ok(Heard { answer: None, at: Instant::now() - age }));
            }
        });
        (Rc::new(Answers::of(directory)), asked)
    }

    fn question(port: u16) -> Question {
        Question::Address(([10, 1, 0, 7], port).into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_answer_is_asked_for_once_and_no_other_is_kept() {
        let second = Duration::from_secs(1);
        for (age, passes, expected) in [
            (Duration::ZERO, FRESH - second, 1),
            (Duration::ZERO, FRESH, 2),
            (second, FRESH - second, 2),
            (FRESH, Duration::ZERO, 2),
        ] {
            let (answers, asked) = answers(age);
            answers.resolve(question(80)).await.expect("an answer");
            tokio::time::advance(passes).await;
            answers.resolve(question(80)).await.expect("an answer");
            assert_eq!(asked.load(Relaxed), expected, "{age:?} old, and {passes:?} later");
            answers.resolve_anew(question(80)).await.expect("an answer");
            answers.resolve(question(81)).await.expect("an answer");
            assert_eq!(asked.load(Relaxed), expected + 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded() {
        let (answers, _) = answers(Duration::ZERO);
        for port in 0..MAX_KEPT as u16 * 2 + 1 {
            answers.resolve(question(port)).await.expect("an answer");
            assert!(answers.kept.borrow().len() <= MAX_KEPT);
        }
    }
}
