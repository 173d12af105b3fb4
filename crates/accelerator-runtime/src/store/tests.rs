use super::*;
use proptest::prelude::*;

/// An object of which only the version matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version(u64);

impl Stored for Version {
    fn version(&self) -> u64 {
        self.0
    }
}

fn known(store: &Store<Version>) -> Vec<(&str, u64)> {
    store.iter().map(|(name, object)| (name, object.0)).collect()
}

fn list(store: &mut Store<Version>, version: u64, objects: &[(&str, u64)]) {
    store.apply(Event::ListBegun(version));
    for (name, version) in objects {
        store.apply(Event::Listed((*name).into(), Version(*version)));
    }
    store.apply(Event::ListEnded);
}

fn applied(store: &mut Store<Version>, name: &str, version: u64) {
    store.apply(Event::Applied(name.into(), Version(version)));
}

fn deleted(store: &mut Store<Version>, name: &str, version: u64) {
    store.apply(Event::Deleted(name.into(), version));
}

fn listed(objects: &[(&str, u64)]) -> Store<Version> {
    let mut store = Store::default();
    list(&mut store, 10, objects);
    store
}

#[test]
fn nothing_is_known_before_the_first_list_is_complete() {
    let mut store = Store::default();
    store.apply(Event::ListBegun(9));
    store.apply(Event::Listed("a".into(), Version(5)));
    assert!(store.snapshot().is_none());
    store.apply(Event::ListEnded);
    assert_eq!(store.snapshot(), Some(vec![Version(5)]));
}

#[test]
fn a_new_list_drops_what_is_gone() {
    let mut store = listed(&[("a", 5), ("b", 6)]);
    list(&mut store, 12, &[("b", 6)]);
    assert_eq!(known(&store), [("b", 6)]);
}

#[test]
fn our_own_newer_write_is_not_undone_by_an_older_event() {
    let mut store = listed(&[("a", 5)]);
    assert!(store.answered("a", Version(13)));
    applied(&mut store, "a", 12);
    assert_eq!(known(&store), [("a", 13)]);
    applied(&mut store, "a", 14);
    assert_eq!(known(&store), [("a", 14)]);
}

#[test]
fn a_late_answer_does_not_bring_back_what_was_deleted_after_it() {
    let mut store = listed(&[("a", 5)]);
    deleted(&mut store, "a", 15);
    assert!(!store.answered("a", Version(12)));
    assert_eq!(known(&store), []);
    assert!(store.answered("a", Version(16)), "made again");
    deleted(&mut store, "a", 15);
    assert_eq!(known(&store), [("a", 16)]);
}

#[test]
fn a_late_answer_does_not_bring_back_what_a_list_no_longer_has() {
    let mut store = listed(&[("a", 5)]);
    list(&mut store, 15, &[]);
    assert!(!store.answered("a", Version(12)));
    assert_eq!(known(&store), []);
}

#[test]
fn what_our_own_write_made_during_a_list_survives_its_end_and_what_was_deleted_before_it_does_not() {
    let mut store = listed(&[]);
    store.apply(Event::ListBegun(20));
    store.answered("made-after", Version(21));
    store.answered("deleted-before", Version(15));
    store.apply(Event::ListEnded);
    assert_eq!(known(&store), [("made-after", 21)]);
}

#[test]
fn a_list_older_than_what_was_told_undoes_nothing() {
    let mut store = listed(&[("a", 5), ("b", 6)]);
    applied(&mut store, "c", 11);
    deleted(&mut store, "b", 12);
    list(&mut store, 10, &[("a", 5), ("b", 6)]);
    assert_eq!(known(&store), [("a", 5), ("c", 11)]);
}

#[test]
fn a_comparison_finds_what_is_missing_old_or_gone_and_nothing_else() {
    let mut store = listed(&[("a", 5), ("b", 6), ("c", 7), ("d", 8)]);
    store.begin_comparison();
    let theirs = |objects: &[(&str, u64)]| objects.iter().map(|(name, version)| ((*name).into(), *version)).collect();
    let list = theirs(&[("a", 5), ("b", 20), ("d", 8), ("e", 21)]);
    // All of this is newer than the list.
    applied(&mut store, "f", 31);
    applied(&mut store, "a", 32);
    deleted(&mut store, "d", 33);
    assert_eq!(
        store.compare(&list, 30),
        ["b is known in an older version", "e is not known", "c does not exist any more"]
    );
    store.begin_comparison();
    assert_eq!(store.compare(&theirs(&[("a", 32), ("b", 6), ("c", 7), ("f", 31)]), 40), Vec::<String>::new());
}

/// What the API server and the ways to us do next.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody creates, changes or deletes an object.
    Write { name: usize, deletes: bool },
    /// We write an object; the answer is under way.
    OwnWrite { name: usize },
    /// One of the answers under way arrives.
    Answer { which: usize },
    /// The watch tells one more event, or a bookmark.
    Tell { bookmark: bool },
    /// A list begins, of a state so many versions ago.
    BeginList { behind: u64 },
    /// It names the next object, or ends.
    Page,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..NAMES.len(), any::<bool>()).prop_map(|(name, deletes)| Step::Write { name, deletes }),
        2 => (0..NAMES.len()).prop_map(|name| Step::OwnWrite { name }),
        2 => (0..8_usize).prop_map(|which| Step::Answer { which }),
        4 => any::<bool>().prop_map(|bookmark| Step::Tell { bookmark }),
        1 => (0..6_u64).prop_map(|behind| Step::BeginList { behind }),
        4 => Just(Step::Page),
    ];
    proptest::collection::vec(step, 0..120)
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// An API server with its whole history, the ways from it to us, and what has been told so far.
#[derive(Default)]
struct Model {
    /// For each version, beginning with 1: which object it is about, and whether it exists since.
    history: Vec<(usize, bool)>,
    answers: Vec<(usize, u64)>,
    /// How far the watch has told.
    watched: u64,
    /// The list under way: its version and the names still to come.
    list: Option<(u64, Vec<(usize, u64)>)>,
    /// The newest that has been told of each object: version and whether it exists.
    told: [(u64, bool); NAMES.len()],
    store: Store<Version>,
}

impl Model {
    fn write(&mut self, name: usize, exists: bool) -> u64 {
        self.history.push((name, exists));
        self.history.len() as u64
    }

    /// The objects as they were at a version.
    fn at(&self, version: u64) -> Vec<(usize, u64)> {
        let past = || (1_u64..).zip(&self.history).take_while(|(at, _)| *at <= version);
        let last = (0..NAMES.len()).filter_map(|name| past().filter(|(_, (about, _))| *about == name).last());
        last.filter(|(_, (_, exists))| *exists).map(|(at, (name, _))| (*name, at)).collect()
    }

    fn hear(&mut self, name: usize, version: u64, exists: bool) {
        if version > self.told[name].0 {
            self.told[name] = (version, exists);
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Write { name, deletes } => {
                let exists = self.at(u64::MAX).iter().any(|(known, _)| *known == name);
                if exists || !deletes {
                    self.write(name, !deletes);
                }
            }
            Step::OwnWrite { name } => {
                let version = self.write(name, true);
                self.answers.push((name, version));
            }
            Step::Answer { which } if which < self.answers.len() => {
                let (name, version) = self.answers.remove(which);
                self.hear(name, version, true);
                self.store.answered(NAMES[name], Version(version));
            }
            Step::Tell { bookmark } if self.list.is_none() && self.store.is_synced() => self.tell(bookmark),
            Step::BeginList { behind } => {
                let version = (self.history.len() as u64).saturating_sub(behind).max(1);
                if !self.history.is_empty() {
                    self.list = Some((version, self.at(version)));
                    self.store.apply(Event::ListBegun(version));
                }
            }
            Step::Page => self.page(),
            Step::Answer { .. } | Step::Tell { .. } => {}
        }
    }

    fn tell(&mut self, bookmark: bool) {
        let Some((name, exists)) = usize::try_from(self.watched).ok().and_then(|next| self.history.get(next).copied())
        else {
            return;
        };
        self.watched += 1;
        self.hear(name, self.watched, exists);
        let (name, version) = (NAMES[name].into(), self.watched);
        self.store.apply(if exists { Event::Applied(name, Version(version)) } else { Event::Deleted(name, version) });
        if bookmark {
            self.store.apply(Event::Bookmark(version));
        }
    }

    fn page(&mut self) {
        let Some((version, rest)) = &mut self.list else { return };
        let version = *version;
        if let Some((name, at)) = rest.pop() {
            self.hear(name, at, true);
            self.store.apply(Event::Listed(NAMES[name].into(), Version(at)));
            return;
        }
        let listed = self.at(version);
        self.list = None;
        for name in 0..NAMES.len() {
            if listed.iter().all(|(known, _)| *known != name) {
                self.hear(name, version, false);
            }
        }
        self.store.apply(Event::ListEnded);
        self.watched = version;
    }

    /// The store is exactly what has been told: nothing that was deleted is back, nothing of ours is lost.
    fn check(&self) {
        let told = self.told.iter().zip(NAMES).filter(|((_, exists), _)| *exists);
        let told: Vec<_> = told.map(|((version, _), name)| (name, *version)).collect();
        assert_eq!(known(&self.store), told);
    }

    /// All that is under way arrives.
    fn settle(&mut self) {
        if !self.store.is_synced() && self.list.is_none() {
            self.write(0, true);
            self.run(&Step::BeginList { behind: 0 });
        }
        while self.list.is_some() {
            self.page();
        }
        while self.watched < self.history.len() as u64 {
            self.tell(false);
        }
        while !self.answers.is_empty() {
            self.run(&Step::Answer { which: 0 });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_interleaving_is_told_right_and_ends_with_the_truth(steps in steps()) {
        let mut model = Model::default();
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.settle();
        model.check();
        let truth: Vec<_> = model.at(u64::MAX).into_iter().map(|(name, version)| (NAMES[name], version)).collect();
        assert_eq!(known(&model.store), truth);
        let truth = truth.into_iter().map(|(name, version)| (name.into(), version)).collect();
        model.store.begin_comparison();
        assert_eq!(model.store.compare(&truth, model.history.len() as u64), Vec::<String>::new());
    }
}
