use super::*;

const TIMING: Timing =
    Timing { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) };

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// A lease on a server that compares and swaps.
#[derive(Clone, Debug)]
struct Server {
    lease: Option<Lease>,
    version: u32,
}

/// The lease as it is installed: without a spec.
impl Default for Server {
    fn default() -> Self {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some("0".into());
        Self { lease: Some(lease), version: 0 }
    }
}

impl Server {
    fn answer(&mut self, request: &Request) -> Response {
        let Some(lease) = &self.lease else { return Response::Absent };
        let Request::Replace(wanted) = request else { return Response::Is(lease.clone()) };
        if lease.resource_version() != wanted.resource_version() {
            return Response::Conflict;
        }
        self.version += 1;
        let mut lease = wanted.clone();
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Response::Is(lease)
    }
}

/// Lets a candidate do all that it wants to do now.
fn turn(election: &mut Election, server: &mut Server, now: Instant) {
    while let Next::Ask(request) = election.next(now, Timestamp::UNIX_EPOCH) {
        let answer = server.answer(&request);
        election.answered(now, now, answer, 0.0);
    }
}

fn candidate(name: &str, now: Instant) -> Election {
    Election::new(name.into(), TIMING, now)
}

#[test]
fn the_first_takes_the_lease_that_nobody_held_and_leads() {
    let (now, mut server) = (Instant::now(), Server::default());
    let mut a = candidate("a", now);
    assert_eq!(a.state(now), State::Candidate);
    turn(&mut a, &mut server, now);
    assert_eq!(a.state(now), State::Leader);
    assert_eq!(a.leads_until(now), Some(now + TIMING.renew_deadline));
    let spec = server.lease.and_then(|lease| lease.spec).expect("a spec");
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(0)));
}

/// It comes with what installs us; making it is nobody's right.
#[test]
fn without_a_lease_one_asks_for_it_again_and_again() {
    let (now, mut server) = (Instant::now(), Server { lease: None, version: 0 });
    let mut a = candidate("a", now);
    turn(&mut a, &mut server, now);
    assert_eq!((a.state(now), a.leads_until(now)), (State::Candidate, None));
    assert_eq!(a.next(now, Timestamp::UNIX_EPOCH), Next::Wait(now + TIMING.retry));
    let installed = now + TIMING.retry;
    turn(&mut a, &mut Server::default(), installed);
    assert_eq!(a.state(installed), State::Leader);
}

#[test]
fn the_second_follows_and_takes_over_exactly_when_the_lease_ran_out_by_its_own_clock() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = (candidate("a", now), candidate("b", now));
    turn(&mut a, &mut server, now);
    let met = now + seconds(1.0);
    turn(&mut b, &mut server, met);
    assert_eq!(b.state(met), State::Follower);
    let before = met + seconds(14.9);
    turn(&mut b, &mut server, before);
    assert_eq!(b.state(before), State::Follower);
    let after = before + seconds(2.0);
    turn(&mut b, &mut server, after);
    assert_eq!(b.state(after), State::Leader);
    assert_eq!(
        server.lease.as_ref().and_then(|lease| lease.spec.as_ref()).and_then(|spec| spec.lease_transitions),
        Some(1)
    );
    turn(&mut a, &mut server, after);
    assert_eq!(a.state(after), State::Follower);
}

#[test]
fn what_other_clocks_wrote_means_nothing() {
    let (now, mut server) = (Instant::now(), Server::default());
    turn(&mut candidate("a", now), &mut server, now);
    for wall in [i64::from(u32::MAX), 0] {
        let mut skewed = server.clone();
        let spec = skewed.lease.as_mut().and_then(|lease| lease.spec.as_mut()).expect("a lease");
        spec.renew_time = Some(MicroTime(Timestamp::from_second(wall).expect("a time")));
        let mut b = candidate("b", now);
        turn(&mut b, &mut skewed, now);
        assert_eq!(b.state(now), State::Follower);
        assert_eq!(b.state(now + seconds(15.1)), State::Candidate);
    }
}

#[test]
fn the_holder_says_how_long_others_wait() {
    let (now, mut server) = (Instant::now(), Server::default());
    turn(&mut candidate("a", now), &mut server, now);
    let spec = server.lease.as_mut().and_then(|lease| lease.spec.as_mut()).expect("a lease");
    spec.lease_duration_seconds = Some(60);
    let mut b = candidate("b", now);
    turn(&mut b, &mut server, now);
    assert_eq!(b.state(now + seconds(59.0)), State::Follower);
}

#[test]
fn a_leader_that_gets_no_answer_stops_before_anybody_else_may_begin() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = (candidate("a", now), candidate("b", now));
    turn(&mut a, &mut server, now);
    turn(&mut b, &mut server, now);
    let asked = now + TIMING.retry;
    assert!(matches!(a.next(asked, Timestamp::UNIX_EPOCH), Next::Ask(Request::Replace(_))));
    a.answered(asked, asked + seconds(5.0), Response::Failed, 0.0);
    assert!(a.leads_until(now + seconds(9.9)).is_some());
    assert!(a.leads_until(now + seconds(10.0)).is_none());
    assert_eq!(b.state(now + seconds(14.9)), State::Follower);
}

/// The answer got lost, the write did not: it was ours.
#[test]
fn a_renewal_whose_answer_got_lost_is_found_again() {
    let (now, mut server) = (Instant::now(), Server::default());
    let mut a = candidate("a", now);
    turn(&mut a, &mut server, now);
    let asked = now + TIMING.retry;
    let Next::Ask(request) = a.next(asked, Timestamp::UNIX_EPOCH) else { panic!("it renews") };
    server.answer(&request);
    a.answered(asked, asked, Response::Failed, 0.0);
    let later = asked + TIMING.retry;
    turn(&mut a, &mut server, later);
    assert_eq!(a.leads_until(later), Some(later + TIMING.renew_deadline));
}

#[test]
fn a_lease_that_was_taken_or_deleted_is_lost_at_once() {
    let (now, mut server) = (Instant::now(), Server::default());
    let mut a = candidate("a", now);
    turn(&mut a, &mut server, now);
    let mut taken = server.clone();
    taken.version += 1;
    let lease = taken.lease.as_mut().expect("a lease");
    lease.metadata.resource_version = Some("9".into());
    lease.spec.get_or_insert_default().holder_identity = Some("b".into());
    let later = now + TIMING.retry;
    turn(&mut a, &mut taken, later);
    assert_eq!(a.state(later), State::Follower);

    let mut a = candidate("a", now);
    turn(&mut a, &mut server, now);
    server.lease = None;
    let Next::Ask(request) = a.next(later, Timestamp::UNIX_EPOCH) else { panic!("it renews") };
    let answer = server.answer(&request);
    a.answered(later, later, answer, 0.0);
    assert_eq!(a.state(later), State::Candidate);
    let installed = later + TIMING.retry;
    turn(&mut a, &mut Server::default(), installed);
    assert_eq!(a.state(installed), State::Leader, "and installed anew");
}

#[test]
fn what_is_released_is_taken_at_the_next_look() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = (candidate("a", now), candidate("b", now));
    turn(&mut a, &mut server, now);
    turn(&mut b, &mut server, now);
    let released = a.release(now).expect("it leads");
    assert!(a.leads_until(now).is_none());
    assert!(matches!(server.answer(&Request::Replace(released)), Response::Is(_)));
    let later = now + TIMING.retry.mul_f64(JITTER);
    turn(&mut b, &mut server, later);
    assert_eq!(b.state(later), State::Leader);
    assert_eq!(
        b.release(later).and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).as_deref(),
        Some("")
    );
}

#[test]
fn a_follower_has_nothing_to_release() {
    let (now, mut server) = (Instant::now(), Server::default());
    turn(&mut candidate("a", now), &mut server, now);
    let mut b = candidate("b", now);
    turn(&mut b, &mut server, now);
    assert_eq!(b.release(now), None);
}

/// The same pod after a crash: whoever it was is dead, so there is nothing to wait for.
#[test]
fn the_same_identity_goes_on_where_it_was() {
    let (now, mut server) = (Instant::now(), Server::default());
    turn(&mut candidate("a", now), &mut server, now);
    let mut again = candidate("a", now);
    turn(&mut again, &mut server, now);
    assert_eq!(again.state(now), State::Leader);
}

proptest::proptest! {
    /// Whatever is slow, lost or refused, in whatever order: at no moment do two lead.
    #[test]
    fn never_two_leaders(steps in proptest::collection::vec((0..3_usize, 0..4_u8, 0..40_u32, 0..60_u32), 1..200)) {
        let mut now = Instant::now();
        let mut server = Server::default();
        let mut all: Vec<_> = ["a", "b", "c"].map(|name| candidate(name, now)).into();
        for (who, fate, before, after) in steps {
            now += seconds(f64::from(before) / 10.0);
            let asked = now;
            if let Next::Ask(request) = all[who].next(now, Timestamp::UNIX_EPOCH) {
                // Lost on the way there, lost on the way back, slow, or well.
                let answer = if fate == 0 { Response::Failed } else { server.answer(&request) };
                if fate >= 2 {
                    now += seconds(f64::from(after) / 10.0);
                }
                let answer = if fate == 1 { Response::Failed } else { answer };
                all[who].answered(asked, now, answer, 0.5);
            }
            let leaders = all.iter().filter(|one| one.leads_until(now).is_some()).count();
            proptest::prop_assert!(leaders <= 1, "{leaders} leaders");
        }
    }
}
