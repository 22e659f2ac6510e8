/* SPDX-License-Identifier: MIT */

/*
 * F-1 F-2 F-3 F-4 F-5
 *
 * The protocol of the kind `flight` (libipc/channel/flight.h, core/seats.h, core/keytable.h) as a
 * model for spin: the chain of one bucket, CELLS cells, WORKERS processes that join a key, lead,
 * land, leave, wait, are promoted and read, and deaths.  tests/model/run checks it.
 *
 * A step is one load, store or exchange of a shared word, in the order of the C code; the names of
 * the C functions stand above.  What follows from a word is decided in the same step.  Steps are
 * joined only where nobody can tell the difference:
 * - a seat's object and its owner's handle: handles only end, so the two looks are as good as one
 *   at the first or at the second.  So are the three looks at whether a leader that is held dead
 *   writes: if its handle is open, then at that one; if not, at the one at the lock
 * - load, exchange, and again from the load if it fails: as good as the exchange that succeeds
 * - the words of a cell that is in no chain, up to the store of its state, and its link and hash:
 *   who reads them by an old link sees that the link has changed, and starts again
 * - a node's hash, read at the look at the link that led there: it changes in no chain
 * - a cell's key, read at the look at its link: if it is another one afterwards, then so is the
 *   turn, which every exchange that follows compares
 * - a result, read in the last moment before the seat is given up: bytes that somebody else has
 *   written since are still there
 * - a death and what the kernel does to the dead one's lock; the end of a handle and the waking of
 *   everybody: the lock is asked for only once the handle has ended, and who is woken earlier
 *   finds nothing else than if it had not run until then
 * - whether an own handle is open, before a state is looked at again: at the step before
 *
 * Not in the model: weak memory (every step is seen by everybody at once; the orders are argued
 * beside each access in the C code), askers and handlers, the limit of attempts, what a flight
 * begins with (run[]), rows that change hands, several threads of a process, and the event count's
 * own words: who announced itself is woken by any notify of its cell from then on, and by any
 * death.  That somebody goes round in circles for ever would not be found; that somebody sleeps for
 * ever is.
 *
 * What is to hold stands in assert(); and in the end, who was not killed has come to its end.
 *
 * WORKERS, CELLS, KEYS    how many; with two keys only the last worker may choose the second
 * ROUNDS                  a worker joins so many times, one after the other
 * STARTS                  set of bits: what the table may be like in the beginning, see init
 * KILL                    a worker may be killed, between any two steps
 * FENCE                   a worker may be held dead by the broker while it lives
 * PATIENT                 nobody leaves before the flight has ended
 * FAULT_...               breaks the protocol on purpose: spin has to find an error:
 *   STALE    a node is used that may have left the chain since it was found
 *   CHECKED  who looks if all are gone says so by the flag alone, which others set as well
 *   DOOM     a key is inserted beside a finished cell that may still be revived
 *   CLAIM    a finished cell is claimed though its leader holds it
 *   PROMOTE  the lead is taken by a store
 *   WRITER   the lead is taken first, and the old leader's lock looked at afterwards
 *   WAKE     who lands wakes nobody
 */

#ifndef WORKERS
#define WORKERS 3
#endif
#ifndef CELLS
#define CELLS 2
#endif
#ifndef KEYS
#define KEYS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef STARTS
#define STARTS 1
#endif

/* ---- words ---- */

/* {turn, seat 2 bits, flags 4, phase 3} */
#define FREE    0
#define CLAIMED 1
#define LED     2
#define UNLED   3
#define LANDED  4
#define ENDED   5

#define LINKED   8
#define FOLLOWED 16
#define DOOMED   32
#define CHECKED  64
#define FLAGS    120

#define PHASE(s)                        ((s) & 7)
#define SEAT(s)                         (((s) >> 7) & 3)
#define TURN(s)                         ((s) >> 9)
#define STATE(turn, seat, flags, phase) (((turn) << 9) | ((seat) << 7) | (flags) | (phase))
#define WITH(s, phase)                  (((s) & ~7) | (phase))
#define IN_FLIGHT(s)                    (PHASE(s) == LED || PHASE(s) == UNLED)
#define LEADS(s)                        (PHASE(s) == LED && SEAT(s) == me)

/* {changes, mark, node + 1} */
#define NODE(l)       ((l) & 3)
#define MARK          4
#define CHANGE(l, to) (((((l) >> 3) + 1) << 3) | (to))

#define NOBODY 3 /* the seat of one who was killed long ago */

short state[CELLS];
byte key_of[CELLS], hash_of[CELLS];
byte result0[CELLS], result1[CELLS];
short bucket, next[CELLS];
byte object[4];          /* of each seat: cell + 1 */
bool writer[4];          /* of each seat */
bool is_open[4];         /* the liveness table */
byte announced[WORKERS]; /* cell + 1 */
bool woken[WORKERS];

/* ---- what is known from outside ---- */

bool lives[4];
bool is_done[WORKERS];
bool was_fenced;       /* anybody, ever */
byte flight_of[CELLS]; /* turn of the flight's start */
bool inserted[CELLS];
byte part[WORKERS]; /* cell + 1 of who takes part */
byte lead[WORKERS]; /* key of who leads */

hidden byte r; /* within a step */

chan die[WORKERS] = [0] of { bit };

/* What a leader writes: which flight, and who it is. */
#define BYTES(flight, seat) (((flight) << 2) | (seat))

#define LEADS_KEY(p)   (p != me && lives[p] && is_open[p] && lead[p] == key)
#define HOLDS(p, cell) (p != me && lives[p] && is_open[p] && part[p] == (cell) + 1)

#if WORKERS == 2
#define ANY(of_p)       (of_p(0) || of_p(1))
#define ANY2(of_p, arg) (of_p(0, arg) || of_p(1, arg))
#else
#define ANY(of_p)       (of_p(0) || of_p(1) || of_p(2))
#define ANY2(of_p, arg) (of_p(0, arg) || of_p(1, arg) || of_p(2, arg))
#endif

#define FLIES(cell) (cell != c && inserted[cell] && key_of[cell] == key && IN_FLIGHT(state[cell]))

#define IN_CHAIN(cell)                                                                             \
	(NODE(bucket) == (cell) + 1 ||                                                             \
	 (NODE(bucket) != 0 && NODE(next[NODE(bucket) - 1]) == (cell) + 1))

/* ---- looks at words; each is a step ---- */

/* seats_is_held() of the seat in the state. */
#define IS_HELD(s) (object[SEAT(s)] == c + 1 && is_open[SEAT(s)])

/* flight_is_let_go() */
#define IS_LET_GO(s) (!((s) & FOLLOWED) && !IS_HELD(s))

/* flight_is_written(): the last leader is held dead, and writes. */
#define IS_WRITTEN(s) (!is_open[SEAT(s)] && writer[SEAT(s)] && object[SEAT(s)] == c + 1)

/* seats_is_gone() */
#define IS_GONE(s) (!is_open[SEAT(s)] && !lives[SEAT(s)])

/* ---- a worker; everything below is inside atomic where it is used ---- */

/* What was only needed on the way is the same in all states afterwards. */
inline forget()
{
	s = 0;
	w = 0;
	head = 0;
	value = 0;
	nx = 0;
	link = 0;
	left = 0;
	n = 0
}

/* I lead from now on, and nobody else does; the key is in flight here and nowhere else. */
inline begin_lead()
{
	if
	:: is_open[me] ->
		assert(key_of[c] == key && own == flight_of[c]);
		assert(inserted[c] && IN_CHAIN(c));
		assert(!ANY(LEADS_KEY));
		assert(!FLIES(0) && !FLIES(1));
		assert(own < 60); /* the word's width in this model */
		part[me] = c + 1;
		lead[me] = key
	:: else
	fi;
	forget();
	is_pending = false;
	announced[me] = 0
}

inline notify(cell)
{
	woken[0] = woken[0] || announced[0] == cell + 1;
	woken[1] = woken[1] || announced[1] == cell + 1;
#if WORKERS > 2
	woken[2] = woken[2] || announced[2] == cell + 1;
#endif
}

/* flight_swap() of the cell's state. */
inline swap(from, to)
{
	r = state[c] == (from);
	if
	:: r -> state[c] = to
	:: else
	fi
}

/* keytable_next() has a new link to go along. */
inline walk_on()
{
	if
	:: NODE(value) == 0 && removes -> removes = false; goto insert
	:: NODE(value) == 0 && !removes -> claim_any(); goto claim
	:: else -> assert(left > 0); left--; goto walk
	fi
}

inline search_begin()
{
	s = 0;
	w = 0;
	link = 0;
	left = CELLS;
	value = bucket;
	if
	:: !removes -> head = value
	:: else
	fi
}

inline claim_any()
{
	s = 0;
	value = 0;
	link = 0;
	left = CELLS;
	c = me % CELLS
}

inline claim_on()
{
	s = 0;
	left--;
	if
	:: left == 0 -> c = 0; goto claim_none
	:: else -> c = (c + 1) % CELLS; goto claim
	fi
}

/* The claimed cell goes to another key from now on. */
inline claim_begin()
{
	assert(!ANY2(HOLDS, c));
	inserted[c] = false;
	left = 0;
	has_swept = false;
	has_found = false;
	if
	:: s & LINKED -> goto remove
	:: else -> goto insert
	fi
}

inline sweep_on()
{
	s = 0;
	c++;
	if
	:: c == CELLS -> c = 0; goto sweep_mark
	:: else -> goto sweep
	fi
}

/* look_once() said AGAIN. */
inline look_again()
{
	w = 0;
	if
	:: is_open[me] -> goto look
	:: else -> goto drop
	fi
}

inline end_part()
{
	part[me] = 0;
	lead[me] = 0;
	announced[me] = 0;
	woken[me] = false;
	forget();
	c = 0;
	key = 0;
	own = 0;
	noted[0] = 0;
	noted[1] = 0;
	held = 0;
	q = 0;
	removes = false;
	sweeps = false;
	has_swept = false;
	has_found = false;
	is_pending = false
}

proctype worker(byte me)
{
	short s, w, head, value, nx;
	short noted[2]; /* of each cell */
	byte key, c, n, link, left, q, held, round;
	byte own; /* turn of the start of the flight that I am in */
	bool removes, sweeps, has_swept, has_found, is_pending;

	{
		if
		:: lead[me] ->
			atomic {
				round = ROUNDS;
				key = 1;
				own = 1;
				goto leads
			}
		:: else
		fi;

		/* ---- join_search(), keytable_begin(), keytable_next(); keytable_remove() too ---- */
	next_round:
		atomic {
			if
			:: round == ROUNDS || !is_open[me] -> goto done /* every call: IPC_ESTALE */
			:: else -> round++
			fi;
			if
			:: key = 1
#if KEYS > 1
			:: me == WORKERS - 1 -> key = 2
#endif
			fi;
			search_begin();
			walk_on()
		}
	search:
		atomic {
			search_begin();
			walk_on()
		}
	walk:
		atomic {
			n = NODE(value);
			nx = next[n - 1]
		}
		atomic {
			if
			:: link == 0 && bucket != value -> n = 0; nx = 0; goto search
			:: link != 0 && next[link - 1] != value -> n = 0; nx = 0; goto search
			:: else
			fi;
			if
			:: nx & MARK -> n = 0; goto pass_over
			:: else
			fi;
			link = n;
			value = nx;
			nx = 0;
			n = 0;
			if
			:: !removes && hash_of[link - 1] == key -> c = link - 1; goto cell
			:: else -> walk_on()
			fi
		}
	pass_over:
		atomic {
			if
			:: link == 0 && bucket == value ->
				value = CHANGE(value, NODE(nx));
				bucket = value;
				if
				:: !removes -> head = value
				:: else
				fi
			:: link != 0 && next[link - 1] == value ->
				value = CHANGE(value, NODE(nx));
				next[link - 1] = value
			:: else -> nx = 0; goto search
			fi;
			nx = 0;
			walk_on()
		}

		/* ---- join_cell() ---- */
	cell:
		s = state[c];
		atomic {
#ifndef FAULT_STALE
			if
			:: next[link - 1] != value -> goto search /* keytable_is_there() */
			:: else
			fi;
#endif
			if
			:: PHASE(s) == FREE || PHASE(s) == CLAIMED || key_of[c] != key ->
				s = 0;
				walk_on()
			:: else
			fi;
			if
			:: IN_FLIGHT(s) -> goto follow
			:: s & DOOMED -> s = 0; walk_on()
			:: PHASE(s) == ENDED -> goto doom
			:: else
			fi
		}

		/* ---- join_finished() ---- */
		if
		:: IS_LET_GO(s) -> goto revive
		:: else
		fi;
	doom:
		atomic {
#ifndef FAULT_DOOM
			swap(s, s | DOOMED);
			if
			:: !r -> goto search
			:: else
			fi;
#endif
			s = 0;
			walk_on()
		}
	revive:
		object[me] = c + 1;
		atomic {
			swap(s, STATE(TURN(s) + 1, me, LINKED, LED));
			if
			:: r ->
				assert(!ANY2(HOLDS, c));
				flight_of[c] = TURN(s) + 1;
				own = flight_of[c];
				begin_lead();
				goto leads
			:: else
			fi
		}
	drop_and_search:
		atomic {
			forget();
			own = 0;
			object[me] = 0;
			goto search
		}

		/* ---- join_follow(): follow_enlist() ---- */
	follow:
		object[me] = c + 1;
	enlist:
		atomic {
			w = state[c];
			if
			:: !IN_FLIGHT(w) || TURN(w) != TURN(s) -> goto drop_and_search
			:: PHASE(w) == UNLED && TURN(w) == TURN(s) -> goto left_written
			:: else
			fi
		}
		if
		:: IS_HELD(w) -> goto enlist_flag
		:: else -> goto left_take_away
		fi;
	enlist_flag:
		atomic {
			w = state[c];
			if
			:: !IN_FLIGHT(w) || TURN(w) != TURN(s) -> goto drop_and_search
			:: (w & FOLLOWED) && !(w & CHECKED) -> goto enlisted
			:: else
			fi
		}
		atomic {
			swap(w, (w | FOLLOWED) & ~CHECKED);
			if
			:: !r -> goto enlist
			:: else
			fi;
		enlisted:
			own = flight_of[c];
			forget();
			if
			:: is_open[me] ->
				assert(key_of[c] == key);
				part[me] = c + 1
			:: else
			fi;
			goto look
		}

		/* ---- flight_end_if_left() of the state in w: of enlist, or of a sweep ---- */
	left_take_away:
		atomic {
			swap(w, WITH(w, UNLED));
			if
			:: !r -> goto left_not
			:: else -> w = WITH(w, UNLED)
			fi
		}
	left_written:
		atomic {
			if
			:: IS_WRITTEN(w) -> goto left_not
			:: else
			fi
		}
		atomic {
#ifdef FAULT_CHECKED
			swap(w, w | CHECKED);
			w = w | CHECKED;
#else
			swap(w, STATE(TURN(w), me, (w & FLAGS) | CHECKED, UNLED));
			w = STATE(TURN(w), me, (w & FLAGS) | CHECKED, UNLED);
#endif
			if
			:: !r -> goto left_not
			:: else
			fi;
			q = (me == 0 -> 1 : 0)
		}
	left_seat:
		atomic {
			if
			:: object[q] == c + 1 && is_open[q] -> q = 0; goto left_not
			:: else
			fi;
			q = (q + 1 == me -> q + 2 : q + 1);
			if
			:: q < WORKERS -> goto left_seat
			:: else -> q = 0
			fi
		}
		atomic {
			swap(w, WITH(w & ~(FOLLOWED | CHECKED), ENDED));
			if
			:: r -> assert(!ANY2(HOLDS, c))
			:: else
			fi;
			if
			:: sweeps -> has_found = has_found || r; goto sweep_next
			:: !sweeps && r -> goto drop_and_search
			:: else
			fi;
		left_not:
			w = 0;
			if
			:: sweeps -> goto sweep_next
			:: else -> goto enlist_flag
			fi
		}

		/* ---- flight_look() ---- */
	look:
		atomic {
			w = state[c];
			assert(!LEADS(w));
			if
			:: PHASE(w) == LANDED -> goto read
			:: PHASE(w) == ENDED -> goto ended
			:: PHASE(w) == UNLED -> goto lead_written
			:: PHASE(w) == FREE || PHASE(w) == CLAIMED -> assert(!is_open[me]); goto drop
			:: else
			fi
		}
		atomic {
			if
			:: IS_HELD(w) -> goto pending
			:: else
			fi
		}

		/* flight_lead() */
#ifndef FAULT_WRITER
		atomic {
			swap(w, WITH(w, UNLED));
			if
			:: !r -> look_again()
			:: else -> w = WITH(w, UNLED)
			fi
		}
	lead_written:
		atomic {
			if
			:: IS_WRITTEN(w) -> goto lead_end
			:: else
			fi
		}
#else
	lead_written:
#endif
		atomic {
#ifdef FAULT_PROMOTE
			r = true;
			state[c] = STATE(TURN(w) + 1, me, w & FLAGS & ~CHECKED, LED);
#else
			swap(w, STATE(TURN(w) + 1, me, w & FLAGS & ~CHECKED, LED));
#endif
			if
			:: !r -> look_again()
			:: else
			fi;
#ifdef FAULT_WRITER
			if
			:: PHASE(w) == LED -> goto lead_late
			:: else
			fi;
#endif
			begin_lead();
			goto leads
		}
#ifdef FAULT_WRITER
	lead_late:
		atomic {
			if
			:: IS_WRITTEN(w) -> w = STATE(TURN(w) + 1, me, w & FLAGS & ~CHECKED, LED)
			:: else -> begin_lead(); goto leads
			fi
		}
#endif
	lead_end:
		atomic {
			swap(w, WITH(w, ENDED));
			if
			:: r && (w & FOLLOWED)
			:: else -> look_again()
			fi
		}
		atomic {
			notify(c);
			look_again()
		}

		/* The event count: announce, look again, sleep. */
	pending:
		atomic {
			w = 0;
			if
			:: !is_pending ->
				is_pending = true;
				announced[me] = c + 1;
				woken[me] = false;
				goto look
			:: is_pending && woken[me] ->
				woken[me] = false;
				goto look
			:: is_pending && !is_open[me] -> goto drop /* the wait says IPC_ESTALE */
#ifndef PATIENT
			:: is_pending -> goto drop
#endif
			fi
		}

		/* Who has waited for a flight sees it end without a result only if its memory is lost. */
	ended:
		atomic {
			assert(!is_pending || was_fenced);
			part[me] = 0;
			if
			:: is_pending -> goto drop
			:: else -> goto drop_and_search
			fi
		}

		/* ---- flight_get_result(), flight_leave() ---- */
	read:
		atomic {
			if
			:: is_open[me] ->
				assert(result0[c] == BYTES(own, SEAT(w)));
				assert(result1[c] == BYTES(own, SEAT(w)));
				assert(own == flight_of[c] && key_of[c] == key)
			:: else
			fi
		}
	drop:
		atomic {
			object[me] = 0;
			end_part();
			goto next_round
		}

		/* ---- flight_claim(): claim_any(), claim_may() ---- */
	claim:
		atomic {
			s = state[c];
			if
			:: PHASE(s) == FREE -> goto claim_cell
			:: PHASE(s) == CLAIMED -> goto claim_gone
			:: PHASE(s) == UNLED || (s & FOLLOWED) -> claim_on()
			:: else
			fi
		}
		atomic {
#ifndef FAULT_CLAIM
			if
			:: !IS_LET_GO(s) -> claim_on()
			:: else
			fi;
#endif
			if
			:: PHASE(s) == LANDED -> goto claim_cell
			:: else
			fi
		}
	claim_gone:
		atomic {
			if
			:: PHASE(s) != ENDED && !IS_GONE(s) -> claim_on()
			:: PHASE(s) == ENDED && IS_WRITTEN(s) -> claim_on()
			:: else
			fi
		}
	claim_cell:
		object[me] = c + 1;
		atomic {
			swap(s, STATE(TURN(s) + 1, me, s & LINKED, CLAIMED));
			if
			:: r -> claim_begin()
			:: else -> claim_on()
			fi
		}
	claim_none:
		atomic {
			object[me] = 0;
			if
			:: has_swept && !has_found -> goto no_space
			:: else -> has_swept = true; has_found = false; goto sweep
			fi
		}
	no_space:
		atomic { /* keytable_has_changed() */
			has_swept = false;
			if
			:: bucket != head -> goto search
			:: else -> goto drop
			fi
		}

		/* ---- claim_sweep(): sweep_wants() ---- */
	sweep:
		atomic {
			s = state[c];
			if
			:: PHASE(s) == UNLED -> noted[c] = s; sweep_on()
			:: (PHASE(s) == LANDED || PHASE(s) == ENDED) && (s & FOLLOWED) ->
				noted[c] = s;
				sweep_on()
			:: PHASE(s) == LED && (s & FOLLOWED)
			:: else -> sweep_on()
			fi
		}
		atomic {
			if
			:: !IS_HELD(s) -> noted[c] = s
			:: else
			fi;
			sweep_on()
		}

		/* seats_mark() */
	sweep_mark:
		atomic {
			q = (q == me -> q + 1 : q);
			if
			:: q < WORKERS && object[q] && is_open[q] -> held = held | (1 << (object[q] - 1))
			:: else
			fi;
			q++;
			if
			:: q < WORKERS -> goto sweep_mark
			:: else -> q = 0; goto sweep_cell
			fi
		}

		/* sweep_let_go() */
	sweep_let_go:
		atomic {
			swap(s, s & ~FOLLOWED);
			if
			:: r -> assert(!ANY2(HOLDS, c)); has_found = true
			:: else
			fi;
		sweep_next:
			sweeps = false;
			w = 0;
			s = 0;
			c++;
		sweep_cell:
			if
			:: c == CELLS -> held = 0; claim_any(); goto claim
			:: else
			fi;
			s = noted[c];
			noted[c] = 0;
			if
			:: s == 0 || (held & (1 << c)) -> goto sweep_next
			:: else
			fi;
			if
			:: PHASE(s) == LED -> w = s; s = 0; sweeps = true; goto left_take_away
			:: PHASE(s) == UNLED -> w = s; s = 0; sweeps = true; goto left_written
			:: else -> goto sweep_let_go
			fi
		}

		/* ---- keytable_remove(): mark, then a walk through the chain ---- */
	remove:
		atomic {
			if
			:: !(next[c] & MARK) -> next[c] = CHANGE(next[c], NODE(next[c]) | MARK)
			:: else
			fi;
			s = 0;
			removes = true;
			goto search
		}

		/* ---- join_insert(): insert_prepare(), keytable_insert() ---- */
	insert:
		atomic {
			assert(PHASE(state[c]) == CLAIMED && SEAT(state[c]) == me && !IN_CHAIN(c));
			link = 0;
			left = 0;
			value = 0;
			s = 0;
			key_of[c] = key;
			hash_of[c] = key;
			next[c] = CHANGE(next[c], NODE(head));
			own = TURN(state[c]);
			flight_of[c] = own;
			state[c] = STATE(own, me, LINKED, LED)
		}
		atomic {
			assert(LEADS(state[c]) && !IN_CHAIN(c));
			if
			:: bucket == head ->
				bucket = CHANGE(head, c + 1);
				inserted[c] = true;
				begin_lead();
				goto leads
			:: else
			fi
		}
		atomic {
			assert(LEADS(state[c]) && !ANY2(HOLDS, c));
			head = 0;
			state[c] = STATE(TURN(state[c]), me, 0, CLAIMED)
		}
		/* flight_unclaim() */
		atomic {
			state[c] = STATE(TURN(state[c]), 0, 0, FREE);
			goto drop_and_search
		}

		/* ---- flight_finish() ---- */
	leads:
		if
		:: writer[me] = true
#ifndef PATIENT
		:: goto leave
#endif
		fi;
		atomic {
			if
			:: !LEADS(state[c]) -> assert(!is_open[me]); goto unlock
			:: else
			fi
		}
		result0[c] = BYTES(own, me);
		result1[c] = BYTES(own, me);
		atomic {
			w = state[c];
			if
			:: !LEADS(w) -> assert(!is_open[me]); w = 0; goto unlock
			:: else
			fi;
			state[c] = WITH(w, LANDED);
			lead[me] = 0
		}
		writer[me] = false;
		atomic {
#ifndef FAULT_WAKE
			if
			:: w & FOLLOWED -> notify(c)
			:: else
			fi;
#endif
			goto read
		}
	unlock:
		writer[me] = false;

		/* ---- flight_leave() ---- */
	leave:
		atomic {
			w = state[c];
			if
			:: !LEADS(w) -> goto drop
			:: LEADS(w) && (w & FOLLOWED) -> state[c] = WITH(w, UNLED); lead[me] = 0
			:: else -> state[c] = WITH(w, ENDED); lead[me] = 0; goto drop
			fi
		}
		atomic {
			notify(c);
			goto drop
		}
	done:
		is_done[me] = true
	}
	unless
	{
		atomic {
			die[me] ? _;
			lives[me] = false;
			writer[me] = false;
			round = 0;
			end_part()
		}
	}
}

/* ---- deaths ---- */

inline any_worker()
{
	if
	:: p = 0
	:: p = 1
#if WORKERS > 2
	:: p = 2
#endif
	fi
}

/* The broker tells everybody. */
inline end_handle()
{
	is_open[p] = false;
	woken[0] = announced[0] != 0;
	woken[1] = announced[1] != 0;
#if WORKERS > 2
	woken[2] = announced[2] != 0;
#endif
}

/* Who has come to its end is of no interest. */
proctype killer()
{
	byte p;

	if
	:: p = 0; die[0] ! 0
	:: p = 1; die[1] ! 0
#if WORKERS > 2
	:: p = 2; die[2] ! 0
#endif
	fi;
	atomic {
		end_handle();
		p = 0
	}
}

proctype fencer()
{
	byte p;

	atomic {
		any_worker();
		was_fenced = true;
		part[p] = 0;
		lead[p] = 0;
		end_handle();
		p = 0
	}
}

/* ---- the beginning ---- */

inline cell_is(cell, key, flags, phase)
{
	state[cell] = STATE(1, NOBODY, (flags) | LINKED, phase);
	key_of[cell] = key;
	hash_of[cell] = key;
	flight_of[cell] = 1;
	inserted[cell] = true;
	next[cell] = CHANGE(0, NODE(bucket));
	bucket = CHANGE(bucket, cell + 1)
}

init
{
	atomic {
		lives[0] = true;
		lives[1] = true;
		is_open[0] = true;
		is_open[1] = true;
#if WORKERS > 2
		lives[2] = true;
		is_open[2] = true;
#endif
		if
		:: STARTS & 1 /* empty */
		:: STARTS & 2 -> /* a finished cell that nobody holds */
			cell_is(0, 1, 0, LANDED)
		:: STARTS & 4 -> /* the leader left, and who followed is gone */
			cell_is(0, 1, FOLLOWED, UNLED)
		:: STARTS & 8 -> /* the leader was killed, and who followed is gone */
			cell_is(0, 1, FOLLOWED, LED)
		:: STARTS & 16 -> /* a finished cell that nobody will revive */
			cell_is(0, 1, DOOMED, LANDED)
		:: STARTS & 32 -> /* full, but nobody holds anything */
			cell_is(0, 1, FOLLOWED, LANDED);
			cell_is(1, 2, FOLLOWED, UNLED)
		:: STARTS & 64 -> /* worker 0 leads */
			cell_is(0, 1, 0, LED);
			state[0] = STATE(1, 0, LINKED, LED);
			object[0] = 1;
			part[0] = 1;
			lead[0] = 1
		fi;
		run worker(0);
		run worker(1);
#if WORKERS > 2
		run worker(2);
#endif
#ifdef KILL
		run killer();
#endif
#ifdef FENCE
		run fencer();
#endif
	}
	timeout;
	assert(is_done[0] || !lives[0]);
	assert(is_done[1] || !lives[1]);
#if WORKERS > 2
	assert(is_done[2] || !lives[2])
#endif
}
