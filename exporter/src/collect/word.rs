//! What libvirtd said last, for scrapes that wait for another one's collection until their own time is over: that it was not
//! their turn does not mean that libvirt is down. Pure.

use tokio::time::Instant;

/// Whether libvirtd answers, as the collection under way knows it.
#[derive(Debug, Default)]
pub(super) struct Word {
    /// It was asked and has not answered yet.
    asked: bool,
    /// When it answered last; `None` once it failed to.
    answered: Option<Instant>,
}

impl Word {
    /// libvirtd is asked who is there.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// It answered, or it did not.
    pub(super) fn came(&mut self, answered: bool) {
        *self = Self { asked: false, answered: answered.then(Instant::now) };
    }

    /// Whether libvirtd answers as far as is known to a scrape that began at `arrived`: the last that was heard of it is an
    /// answer, and where it is being asked again that one came within this scrape.
    pub(super) fn is_up(&self, arrived: Instant) -> bool {
        self.answered.is_some_and(|answered| !self.asked || answered >= arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_makes_it_up() {
        let (mut word, arrived) = (Word::default(), Instant::now());
        assert!(!word.is_up(arrived));
        word.asked();
        assert!(!word.is_up(arrived));
        word.came(true);
        assert!(word.is_up(arrived));
        let later = Instant::now() + std::time::Duration::from_secs(1);
        assert!(word.is_up(later), "monitors are being read");
        word.asked();
        assert!(word.is_up(arrived) && !word.is_up(later), "it may hang since");
        word.came(false);
        assert!(!word.is_up(arrived));
    }
}
