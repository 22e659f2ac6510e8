/* SPDX-License-Identifier: MIT */

/*
 * Q-1 Q-2 Q-5 Q-6 Q-10 Q-12 Q-14 Q-19 Q-20
 *
 * The protocol of the kind `queue` (libipc/channel/queue.h, core/index_ring.h, core/rows.h) as a
 * model for spin: one class of BLOCKS blocks with a ring of ENTRIES entries, with DEAD another such
 * one for dead letters, WORKERS handles that push, take, put back, reject, shut down, and deaths.
 * tests/model/run checks it.
 *
 * A step is one load, store or exchange of a shared word, in the order of the C code; the names of
 * the C functions stand above.  What follows from a word is decided in the same step.  Steps are
 * joined only where nobody can tell the difference:
 * - looking for a free block and taking it: as good as the exchange that succeeds
 * - load and exchange where the load alone says what is expected (ack, requeue, reject)
 * - position and entry of a block that is READY: once its row is free nobody writes the position,
 *   and before that only their agreement is believed
 * - the bytes of a block and the rest that is written before its word changes
 * - owners of rows and the liveness table: handles only end, and a row is taken by exchange
 * - what the broker tells of a death; the death itself is a step before
 *
 * Not in the model: weak memory (every step is seen by everybody at once; the orders are argued
 * beside each access in the C code), bytes, tokens, classes, open claims (as READY to who sweeps),
 * cursors and what was found full, leases given back by close, waiting for room, and dead letters
 * that are shut down.  Uses and laps do not come round.  That somebody goes round in circles for
 * ever would not be found.
 *
 * What is to hold stands in assert(); in the end, when nobody can go on, one more handle sweeps,
 * takes all that is left, and everything is counted up.
 *
 * WORKERS, BLOCKS, ENTRIES  how many
 * ROLE0, ROLE1, ROLE2       what a worker may do: PUSH, TAKE, SHUT, TAKE_DEAD; BEGIN: without a row
 * CALLS0, CALLS1, CALLS2    how often
 * ENDS                      what becomes of an item that was taken: ACK, REQUEUE, REJECT
 * ATTEMPTS                  how many there may be; 0: no bound
 * WAITING                   items that wait in the beginning
 * DEAD                      there are dead letters
 * DOUBTED                   a copy of the first item may have come there, and has
 * KILL                      set of bits: who may be killed, between any two steps; one is
 * FENCE                     the same: held dead by the broker, while it lives
 * SLEEP                     who finds nothing sleeps
 * FAULT_...                 breaks the protocol on purpose: spin has to find an error:
 *   STILL     a word is taken for the entry's whatever its use is
 *   USE       the same, if the entry is still as it was seen
 *   TAIL      the position is stored after the exchange
 *   HEAD      who catches up goes to the entry's own lap
 *   POP       an entry is freed by a store
 *   SHUT      shutdown sets the flag, and does not close the ring
 *   GONE      a push of one who is only held dead is swept
 *   COUNT     an ended block is freed, and then counted
 *   FORGET    the counter still names the last use of a block
 *   FORGOTTEN the counter forgets a block that has ended since
 *   NAMED     what the counter named is freed without looking whether it still does
 *   SEEN      the returns are counted after the search
 *   HALVES    a sweep does not say that there may be returned ones
 *   RESOLVE   what a dead mover left goes back, whatever became of its copy
 *   TARGET    a mover stores what it names by a plain store
 *   MOVE      the copy is committed before the word says so
 *   ITEM      a copy that is gone was an item
 *   SETTLE    whether the mover is gone is asked after whether its copy is committed
 *   DOUBT     the next mover forgets that there may be a copy
 *   INHERIT   a row's new owner does not look for what the old one held
 *   WAKE      the broker wakes nobody
 */

#define PUSH      1
#define TAKE      2
#define SHUT      4
#define TAKE_DEAD 8
#define BEGIN     16
#define LAST_OF_ALL 2

#define ACK     1
#define REQUEUE 2
#define REJECT  4

#ifndef WORKERS
#define WORKERS 3
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef ENTRIES
#define ENTRIES 3
#endif
#ifndef ROLE0
#define ROLE0 PUSH
#endif
#ifndef ROLE1
#define ROLE1 TAKE
#endif
#ifndef ROLE2
#define ROLE2 TAKE
#endif
#ifndef CALLS0
#define CALLS0 1
#endif
#ifndef CALLS1
#define CALLS1 1
#endif
#ifndef CALLS2
#define CALLS2 1
#endif
#ifndef ENDS
#define ENDS ACK
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 0
#endif
#ifndef WAITING
#define WAITING 0
#endif
#ifdef DEAD
#define QUEUES 2
#else
#define QUEUES 1
#endif

/* The handle that looks after everything in the end. */
#define LAST WORKERS

#define ITEMS 6

/* ---- words ---- */

/* {use, attempt 3 bits, row 2, phase 3} */
#define FREE     0
#define READY    1
#define LEASED   2
#define RETURNED 3
#define MOVING   4
#define ENDED    5

#define PHASE(w)                         ((w) & 7)
#define ROW(w)                           (((w) >> 3) & 3)
#define ATTEMPT(w)                       (((w) >> 5) & 7)
#define USE(w)                           ((w) >> 8)
#define WORD(use, attempt, row, phase)   (((use) << 8) | ((attempt) << 5) | ((row) << 3) | (phase))
#define WITH(w, row, phase)              WORD(USE(w), ATTEMPT(w), row, phase)
#define WAS_ITEM(w)                      (PHASE(w) == LEASED || PHASE(w) == ENDED)
#define FREED(w)                         WORD(USE(w) + 1, WAS_ITEM(w), 0, FREE)

/* Rows of ENDED words: which counter. */
#define COUNT_DEAD    0
#define COUNT_DROPPED 1

/* {lap, use 5 bits, block 2, kind 2} */
#define FULL   1
#define CLOSED 2

#define KIND(e)                     ((e) & 3)
#define BLOCK(e)                    (((e) >> 2) & 3)
#define ENTRY_USE(e)                (((e) >> 4) & 31)
#define LAP(e)                      ((e) >> 9)
#define ENTRY(kind, lap, block, use) (((lap) << 9) | ((use) << 4) | ((block) << 2) | (kind))
#define AT(queue, position)         ((queue) * ENTRIES + (position) % ENTRIES)
#define AHEAD(e, position)          (LAP(e) - (position) / ENTRIES)

/* {value, block + 1 3 bits} */
#define NAME(c)        ((c) & 7)
#define COUNTED(c, to) (((((c) >> 3) + 1) << 3) | ((to) + 1))
#define NAMELESS(c)    ((c) & ~7)

/* {doubt, use 5 bits, block 2} */
#define DOUBTFUL           128
#define TARGET(block, use) (((use) << 2) | (block))
#define TARGET_USE(t)      (((t) >> 2) & 31)
#ifndef FAULT_DOUBT
#define AIMED(t) ((t) & DOUBTFUL)
#else
#define AIMED(t) 0
#endif

short word[QUEUES * BLOCKS];
short entry[QUEUES * ENTRIES];
byte head[QUEUES], tail[QUEUES];
byte returned[QUEUES], returned_seen[QUEUES];
byte owner[QUEUES * 4]; /* of each row: handle + 1 */
short counter[2];
bool is_shut;
byte position[QUEUES * BLOCKS];
byte data[QUEUES * BLOCKS];
byte target[BLOCKS];
bool is_open[WORKERS + 1]; /* the liveness table */
byte attention;            /* grows with each death */
bool announced[WORKERS + 1], woken[WORKERS + 1];

/* ---- what is known from outside ---- */

bool lives[WORKERS + 1];
bool is_done[WORKERS + 1];
bool sleeps[WORKERS + 1];
bool was_shut; /* shutdown has returned */
byte n_items;
byte n_commits[QUEUES], n_firsts[QUEUES];

/* Of each block's use. */
byte item_of[QUEUES * BLOCKS];
bool is_item[QUEUES * BLOCKS];
byte holder[QUEUES * BLOCKS]; /* handle + 1 */

/* Of each item. */
#define NOTHING 0
#define WAITS   1
#define ACKED   2
#define DEADED  3
#define DROPPED 4
byte fate[ITEMS];
byte last_attempt[ITEMS];
bool is_counted[ITEMS];
byte copies[ITEMS]; /* set of attempts */
bool is_in_doubt[ITEMS];
byte n_acked, n_ended[2];

hidden byte r; /* within a step */

chan die[WORKERS + 1] = [0] of { bit };

/* ---- looks at words; each is a step ---- */

/* queue_is_live() */
#define IS_LIVE(e) (PHASE(word[BLOCK(e)]) == READY && USE(word[BLOCK(e)]) == ENTRY_USE(e))

/* queue_is_committed() */
#define IS_COMMITTED(block, w)                                                                     \
	(entry[AT((block) / BLOCKS, position[block])] ==                                           \
	 ENTRY(FULL, position[block] / ENTRIES, block, USE(w)))

/* rows_is_alive(), rows_is_free() */
#define OWNER(queue, row)    owner[(queue) * 4 + (row)]
#define IS_ALIVE(queue, row) (OWNER(queue, row) && is_open[OWNER(queue, row) - 1])
#define IS_FREE(queue, row)                                                                        \
	(!OWNER(queue, row) || (!is_open[OWNER(queue, row) - 1] && !lives[OWNER(queue, row) - 1]))
#define IS_DEAD(queue, row) (OWNER(queue, row) && !is_open[OWNER(queue, row) - 1])
#define IS_GONE(queue, row) (IS_DEAD(queue, row) && IS_FREE(queue, row))
#define ANY_ROW(what, queue) (what(queue, 0) || what(queue, 1) || what(queue, 2) || what(queue, 3))

#define HAS_TOO_MANY(attempt) (ATTEMPTS && (attempt) > ATTEMPTS)

/* ---- a handle; everything below is inside atomic where it is used ---- */

/* Where to go on. */
#define AFTER_ROOM     1
#define AFTER_SEARCH   2
#define AFTER_SWEEP    3
#define AFTER_CALL     4
#define AFTER_PUSH     5
#define AFTER_MOVE     6
#define AFTER_SHUT     7
#define AFTER_NOTHING  8
#define AFTER_TAKE     9
#define AFTER_BEGIN    10

inline forget()
{
	w = 0;
	aw = 0;
	fw = 0;
	nw = 0;
	e = 0;
	c = 0;
	b = 0;
	ab = 0;
	fb = 0;
	p = 0;
	i = 0;
	x = 0;
	y = 0;
	has_swept = false;
	is_returned = false;
	is_shutting = false;
	after_end = 0;
	after_finish = 0;
	after_add = 0;
	q = 0
}

inline swap(block, from, to)
{
	r = word[block] == (from);
	if
	:: r -> word[block] = to
	:: else
	fi
}

/* queue_notify() of the consumers */
inline notify()
{
#ifdef SLEEP
	woken[0] = woken[0] || announced[0];
	woken[1] = woken[1] || announced[1];
#if WORKERS > 2
	woken[2] = woken[2] || announced[2];
#endif
#endif
	skip
}

/* A free block becomes READY for this item. */
inline claim(block, row, attempt, item)
{
	word[block] = WORD(USE(word[block]), attempt, row, READY);
	item_of[block] = item;
	is_item[block] = false
}

/* READY, not committed, becomes FREE. */
inline give_ready(block, from)
{
	swap(block, from, FREED(from));
	if
	:: r -> assert(!is_item[block])
	:: else
	fi
}

/* An ENDED block becomes FREE. */
inline give_ended(block, from)
{
	swap(block, from, FREED(from));
	if
	:: r ->
#ifndef FAULT_COUNT
		assert(is_counted[item_of[block]]);
#endif
		is_item[block] = false;
		holder[block] = 0
	:: else
	fi
}

inline committed(queue, block, w, at)
{
	assert(word[block] == w); /* or it is nowhere */
	assert(at == n_commits[queue]);
	n_commits[queue]++;
	is_item[block] = true;
	if
	:: queue == 0 ->
		assert(!was_shut);
		assert(fate[item_of[block]] == NOTHING);
		fate[item_of[block]] = WAITS
	:: else ->
		assert(!(copies[item_of[block]] & (1 << ATTEMPT(w))));
		copies[item_of[block]] = copies[item_of[block]] | (1 << ATTEMPT(w))
	fi
}

inline leased(queue, block)
{
	assert(is_item[block]);
	holder[block] = me + 1;
	if
	:: queue == 0 ->
		assert(fate[item_of[block]] == WAITS);
		assert(ATTEMPT(word[block]) > last_attempt[item_of[block]]);
		last_attempt[item_of[block]] = ATTEMPT(word[block])
	:: else
	fi;
	if
	:: !is_returned ->
		assert(p == n_firsts[queue]);
		n_firsts[queue]++
	:: else
	fi
}

inline forget_all()
{
	forget();
	si = 0;
	told = 0;
	row[0] = 0;
	row[1] = 0;
	swept[0] = 0;
	swept[1] = 0;
	gone = 0;
	after_sweep = 0;
	sq = 0;
	kind = 0;
	is_looking = false;
	clears = false;
	lingers[0] = false;
	lingers[1] = false;
	announced[me] = false;
	left = 0
}

inline end_call()
{
	forget();
	goto next
}

proctype member(byte me; byte role; byte left)
{
	short w, aw, fw, nw, e, c;
	byte b, ab, fb, p, i, x, y;
	byte si, told, row[2];
	byte swept[2];
	byte gone; /* set of handles */
	byte after_sweep, after_finish, after_end, after_add;
	bit q, sq, kind;
	bool has_swept, is_returned, is_shutting, is_looking, clears;
	bool lingers[2];

	{
		if
		:: role & BEGIN -> q = QUEUES - 1; goto begin
		:: else ->
			row[0] = me;
			row[1] = me
		fi;

	next:
		atomic {
			if
			:: left == 0 || !is_open[me] -> goto done /* every call: IPC_ESTALE */
			:: else -> left--
			fi;
			if
			:: role & PUSH -> goto push
			:: role & TAKE -> goto take
			:: role & SHUT -> goto shut
#ifdef DEAD
			:: role & TAKE_DEAD -> q = 1; goto take
#endif
			fi
		}

		/* ---- queue_push(): queue_end_of_pushing(), take_room() ---- */
	push:
		atomic {
			if
			:: is_shut -> end_call()
			:: else
			fi
		}
	room:
		atomic {
			if
			:: PHASE(word[0]) == FREE -> b = 0
			:: PHASE(word[1]) == FREE -> b = 1
			:: else -> i = 0; goto room_search
			fi;
			assert(n_items < ITEMS);
			claim(b, row[0], 1, n_items);
			n_items++;
			w = word[b];
			goto push_fill
		}
		/* group_search(): it may have become free only now */
	room_search:
		atomic {
			if
			:: i == BLOCKS && !has_swept ->
				has_swept = true;
				i = 0;
				sq = 0;
				after_sweep = AFTER_ROOM;
				goto sweep
			:: i == BLOCKS && has_swept -> end_call()
			:: else
			fi;
			i++;
			if
			:: PHASE(word[i - 1]) == FREE -> goto room
			:: PHASE(word[i - 1]) == ENDED ->
				fb = i - 1;
				fw = word[fb];
				after_finish = AFTER_ROOM;
				goto finish
			:: else -> goto room_search
			fi
		}

		/* ---- push_into(): queue_fill() ---- */
	push_fill:
		atomic {
			data[b] = item_of[b] + 1;
			target[b] = 0;
			ab = b;
			aw = w;
			after_add = AFTER_PUSH;
			goto add
		}
	push_closed:
		atomic {
			give_ready(b, w);
			end_call()
		}

		/* ---- index_ring_add() of {ab, aw}, index_ring_close(): ring_end() ---- */
	add:
		p = tail[ab / BLOCKS];
		atomic {
			e = entry[AT(ab / BLOCKS, p)];
			if
			:: KIND(e) == CLOSED -> p = 0; e = 0; goto add_is_closed
			:: KIND(e) == FREE && AHEAD(e, p) == 0 && is_shutting -> goto close_swap
			:: KIND(e) == FREE && AHEAD(e, p) == 0 && !is_shutting -> goto add_position
			:: KIND(e) == FULL && AHEAD(e, p) == 0 -> p++
			:: KIND(e) != CLOSED && AHEAD(e, p) > 0 -> p = p + (AHEAD(e, p) - 1) * ENTRIES + 1
			:: KIND(e) != CLOSED && AHEAD(e, p) < 0 ->
				assert(AHEAD(e, p) == -1 && KIND(e) == FULL);
				goto add_left
			fi
		}
		atomic {
			tail[ab / BLOCKS] = p;
			goto add
		}
	add_left:
		assert(!IS_LIVE(e));
		atomic {
			if
			:: entry[AT(ab / BLOCKS, p)] == e ->
				entry[AT(ab / BLOCKS, p)] = ENTRY(FREE, p / ENTRIES, 0, 0)
			:: else
			fi;
			goto add
		}
	add_position:
#ifndef FAULT_TAIL
		position[ab] = p;
#endif
		atomic {
			if
			:: entry[AT(ab / BLOCKS, p)] == e ->
				entry[AT(ab / BLOCKS, p)] = ENTRY(FULL, p / ENTRIES, ab, USE(aw));
				committed(ab / BLOCKS, ab, aw, p)
			:: else -> goto add
			fi
		}
#ifdef FAULT_TAIL
		position[ab] = p;
#endif
		tail[ab / BLOCKS] = p + 1;
		atomic {
			notify();
			if
			:: after_add == AFTER_PUSH -> end_call()
#ifdef DEAD
#ifdef FAULT_MOVE
			:: after_add == AFTER_MOVE && PHASE(w) != MOVING -> kind = COUNT_DEAD; goto move_late
#endif
			:: after_add == AFTER_MOVE -> kind = COUNT_DEAD; goto move_end
#endif
			fi
		}
	close_swap:
		atomic {
			if
			:: entry[AT(ab / BLOCKS, p)] == e ->
				entry[AT(ab / BLOCKS, p)] = ENTRY(CLOSED, p / ENTRIES, 0, 0)
			:: else -> goto add
			fi;
			p = 0;
			e = 0
		}
	add_is_closed:
		atomic {
			if
			:: after_add == AFTER_PUSH -> goto push_closed
#ifdef DEAD
			:: after_add == AFTER_MOVE -> goto move_closed
#endif
			:: after_add == AFTER_SHUT -> goto shut_told
			:: after_add == AFTER_NOTHING -> is_shutting = false; goto take_again
			fi
		}

		/* ---- queue_shutdown() ---- */
	shut:
		is_shut = true;
		atomic {
			after_add = AFTER_SHUT;
			is_shutting = true;
#ifndef FAULT_SHUT
			goto add
#endif
		}
	shut_told:
		atomic {
			notify();
			was_shut = true;
			end_call()
		}

		/* ---- queue_take(): take_once(), first_returned() ---- */
	take:
		atomic {
			sq = q;
			after_sweep = AFTER_TAKE;
			goto sweep
		}
	take_again:
		atomic {
			w = 0;
			fw = 0;
			e = 0;
			p = 0;
			b = 0;
			i = 0;
			is_returned = false;
#ifndef FAULT_SEEN
			y = returned[q]
#endif
		}
		atomic {
			x = returned_seen[q];
#ifdef FAULT_SEEN
			y = returned[q];
#endif
			if
			:: x == y -> x = 0; y = 0; goto peek
			:: else
			fi
		}
	search:
		atomic {
			if
			:: i == BLOCKS && is_returned -> x = 0; y = 0; i = 0; goto lease
			:: i == BLOCKS && !is_returned -> goto search_none
			:: else
			fi;
			fb = q * BLOCKS + i;
			i++;
			if
			:: PHASE(word[fb]) == ENDED -> fw = word[fb]; after_finish = AFTER_SEARCH; goto finish
			:: PHASE(word[fb]) == RETURNED && (!is_returned || position[fb] <= position[b]) ->
				b = fb;
				w = word[b];
				is_returned = true
			:: else
			fi;
			goto search
		}
	search_none:
#ifdef FAULT_SEEN
		y = returned[q];
#endif
		atomic {
			if
			:: returned_seen[q] == x -> returned_seen[q] = y
			:: else
			fi;
			x = 0;
			y = 0;
			i = 0;
			fb = 0
		}

		/* ---- first_in_ring(): index_ring_peek() ---- */
	peek:
		p = head[q];
		atomic {
			e = entry[AT(q, p)];
			assert(AHEAD(e, p) >= 0);
			if
#ifndef FAULT_HEAD
			:: AHEAD(e, p) > 0 -> p = p + (AHEAD(e, p) - 1) * ENTRIES + 1
#else
			:: AHEAD(e, p) > 0 -> p = p + AHEAD(e, p) * ENTRIES
#endif
			:: AHEAD(e, p) == 0 && KIND(e) == FREE ->
				assert(n_firsts[q] == n_commits[q]);
				goto nothing
			:: AHEAD(e, p) == 0 && KIND(e) == CLOSED ->
				assert(n_firsts[q] == n_commits[q]);
				goto nothing
			:: AHEAD(e, p) == 0 && KIND(e) == FULL -> b = BLOCK(e); goto peek_word
			fi
		}
		atomic {
			head[q] = p;
			goto peek
		}
	peek_word:
#ifdef FAULT_USE
		atomic {
			if
			:: !IS_LIVE(e) -> w = word[b]; goto pop
			:: else
			fi
		}
		w = word[b];
		atomic {
			if
			:: PHASE(w) == READY && entry[AT(q, p)] == e -> goto lease
			:: else -> goto peek
			fi
		}
#endif
		atomic {
			w = word[b];
#ifndef FAULT_STILL
			if
			:: PHASE(w) == READY && USE(w) == ENTRY_USE(e) -> goto lease
			:: else
			fi
#else
			if
			:: PHASE(w) == READY -> goto lease
			:: else
			fi
#endif
		}
		/* Taken; whoever did so has not freed the entry. */
	pop:
		atomic {
#ifndef FAULT_POP
			if
			:: entry[AT(q, p)] == e -> entry[AT(q, p)] = ENTRY(FREE, p / ENTRIES + 1, 0, 0)
			:: else
			fi
#else
			entry[AT(q, p)] = ENTRY(FREE, p / ENTRIES + 1, 0, 0)
#endif
		}
		atomic {
			head[q] = p + 1;
			e = 0;
			p = 0;
			if
			:: PHASE(w) == LEASED && after_end == AFTER_TAKE -> goto taken
			:: else -> w = 0; b = 0; goto peek
			fi
		}

		/* ---- first_lease() ---- */
	lease:
		atomic {
			swap(b, w, WITH(w, row[q], LEASED));
			if
			:: !r -> goto take_again
			:: else
			fi;
			leased(q, b);
			w = word[b];
			after_end = AFTER_TAKE; /* it is mine */
			if
			:: is_returned -> is_returned = false; goto taken
			:: else -> goto pop
			fi
		}
	taken:
		atomic {
			after_end = 0;
			if
			:: HAS_TOO_MANY(ATTEMPT(w)) -> after_end = AFTER_TAKE; goto dispose
			:: else
			fi
		}

		/* ---- item_give(), and what the program does with it ---- */
		atomic {
			assert(word[b] != w || data[b] == item_of[b] + 1);
			after_end = AFTER_CALL;
			if
			:: me == LAST || q == 1 || (ENDS & ACK)
			:: me != LAST && q == 0 && (ENDS & REQUEUE) ->
				if
				:: HAS_TOO_MANY(ATTEMPT(w) + 1) -> goto dispose
				:: else -> goto requeue
				fi
			:: me != LAST && q == 0 && (ENDS & REJECT) -> goto dispose
			fi
		}
		/* ---- queue_ack() ---- */
		atomic {
			swap(b, w, FREED(w));
			if
			:: r && q == 0 ->
				assert(fate[item_of[b]] == WAITS);
				fate[item_of[b]] = ACKED;
				n_acked++
			:: else
			fi;
			if
			:: r -> is_item[b] = false; holder[b] = 0
			:: else
			fi;
			end_call()
		}
		/* ---- queue_requeue() ---- */
	requeue:
		atomic {
			fb = b;
			fw = w;
			after_finish = AFTER_CALL;
			goto return_item
		}

		/* ---- nothing(), close_all() ---- */
	nothing:
		atomic {
			r = KIND(e) == CLOSED;
			e = 0;
			p = 0;
			b = 0;
			if
			:: !is_shut && me != LAST ->
#ifdef SLEEP
				goto sleep
#endif
				end_call()
			:: !is_shut && me == LAST -> goto last_queue
			:: is_shut && r && me != LAST -> end_call()
			:: is_shut && r && me == LAST -> goto last_queue
			:: is_shut && !r ->
				ab = q * BLOCKS;
				after_add = AFTER_NOTHING;
				is_shutting = true;
				goto add
			fi
		}
	last_queue:
		atomic {
			if
			:: q == QUEUES - 1 -> goto done
			:: else -> q = 1; goto take
			fi
		}
#ifdef SLEEP
	sleep:
		if
		:: !is_looking -> announced[me] = true; is_looking = true; goto take
		:: else
		fi;
		sleeps[me] = true;
		atomic {
			woken[me] ->
			woken[me] = false;
			announced[me] = false;
			sleeps[me] = false;
			is_looking = false;
			if
			:: !is_open[me] -> goto done
			:: else -> goto take
			fi
		}
#endif

		/* ---- queue_dispose() of {b, w}: drop() ---- */
	dispose:
#ifndef DEAD
		atomic {
			fb = b;
			fw = w;
			kind = COUNT_DROPPED;
			goto end_begin
		}
#else
		/* ---- move(): dead_prepare_copy() ---- */
		atomic {
			if
			:: PHASE(word[BLOCKS]) == FREE -> ab = BLOCKS
			:: PHASE(word[BLOCKS + 1]) == FREE -> ab = BLOCKS + 1
			:: else ->
				if
				:: !has_swept ->
					has_swept = true;
					sq = 1;
					after_sweep = AFTER_MOVE;
					goto sweep
				:: else ->
					fb = b;
					fw = w;
					kind = COUNT_DROPPED;
					goto end_begin
				fi
			fi;
			claim(ab, row[1], (target[b] & DOUBTFUL -> 2 : 1), data[b] - 1);
			aw = word[ab]
		}
		data[ab] = data[b];
#ifndef FAULT_TARGET
		/* move_aim() */
	aim:
		x = target[b];
		atomic {
			if
			:: word[b] != w -> goto move_none
			:: else
			fi
		}
		atomic {
			if
			:: target[b] == x -> target[b] = TARGET(ab, USE(aw)) | AIMED(x)
			:: else -> goto aim
			fi;
			x = 0
		}
#else
		target[b] = TARGET(ab, USE(aw)) | AIMED(target[b]);
#endif
#ifdef FAULT_MOVE
		atomic {
			after_add = AFTER_MOVE;
			goto add
		}
	move_late:
#endif
		atomic {
			swap(b, w, WITH(w, row[0], MOVING));
			if
			:: r ->
				w = word[b];
				after_add = AFTER_MOVE;
#ifdef FAULT_MOVE
				goto move_end
#endif
				goto add
			:: else
			fi
		}
	move_none:
		atomic {
			x = 0;
#ifndef FAULT_MOVE
			give_ready(ab, aw);
#endif
			goto end_done
		}
	move_end:
		atomic {
			p = 0;
			e = 0;
			fb = b;
			fw = w;
			goto end_begin
		}
	move_closed:
		atomic {
			give_ready(ab, aw);
			fb = b;
			fw = w;
			kind = COUNT_DROPPED;
			goto end_begin
		}
#endif

		/* ---- end_begin() of {fb, fw}: counter_forget() ---- */
	end_begin:
#ifndef FAULT_FORGET
		atomic {
			c = counter[kind];
			if
			:: NAME(c) != fb + 1 -> goto end_swap
			:: else
			fi
		}
#ifndef FAULT_FORGOTTEN
		atomic {
			if
			:: word[fb] != fw -> goto end_done
			:: else
			fi
		}
#endif
		atomic {
			if
			:: counter[kind] == c -> counter[kind] = NAMELESS(c)
			:: else
			fi
		}
#endif
	end_swap:
		atomic {
			c = 0;
			swap(fb, fw, WITH(fw, kind, ENDED));
			if
			:: !r -> goto end_done
			:: else
			fi;
			fw = word[fb];
			assert(fate[item_of[fb]] == WAITS);
			fate[item_of[fb]] = (kind == COUNT_DEAD -> DEADED : DROPPED);
			n_ended[kind]++;
			after_finish = 0;
			goto finish
		}
	end_done:
		atomic {
			c = 0;
			ab = 0;
			aw = 0;
			kind = 0;
			has_swept = false;
			if
			:: after_end == AFTER_CALL -> end_call()
			:: after_end == AFTER_TAKE -> after_end = 0; goto take_again
			:: after_end == AFTER_SWEEP -> after_end = 0; goto sweep_next
			fi
		}

		/* ---- queue_finish() of {fb, fw}: end_count(), end_free_named() ---- */
	finish:
#ifdef FAULT_COUNT
		atomic {
			give_ended(fb, fw)
		}
#endif
		c = counter[ROW(fw)];
		atomic {
#ifndef FAULT_COUNT
			if
			:: word[fb] != fw -> goto finish_done
			:: else
			fi;
#endif
			if
			:: NAME(c) == fb + 1 -> goto finish_free
			:: NAME(c) == 0 -> goto finish_count
			:: else
			fi
		}
		atomic {
			nw = word[NAME(c) - 1];
			if
			:: PHASE(nw) != ENDED || ROW(nw) != ROW(fw) -> nw = 0; goto finish_count
			:: else
			fi
		}
#ifndef FAULT_NAMED
		atomic {
			if
			:: counter[ROW(fw)] != c -> nw = 0; goto finish
			:: else
			fi
		}
#endif
		atomic {
			give_ended(NAME(c) - 1, nw);
			nw = 0
		}
	finish_count:
		atomic {
			if
			:: counter[ROW(fw)] == c ->
#ifndef FAULT_COUNT
				assert(word[fb] == fw);
#endif
				assert(!is_counted[item_of[fb]]);
				is_counted[item_of[fb]] = true;
				counter[ROW(fw)] = COUNTED(c, fb)
			:: else -> goto finish
			fi
		}
	finish_free:
		atomic {
			give_ended(fb, fw)
		}
	finish_done:
		atomic {
			c = 0;
			fw = 0;
			fb = 0;
			if
			:: after_finish == AFTER_ROOM -> after_finish = 0; goto room_search
			:: after_finish == AFTER_SEARCH -> after_finish = 0; goto search
			:: after_finish == AFTER_SWEEP -> after_finish = 0; goto sweep_next
			:: after_finish == 0 -> goto end_done
			fi
		}

		/* ---- queue_return() of {fb, fw} ---- */
	return_item:
		atomic {
			assert(ATTEMPT(fw) < 7);
			swap(fb, fw, WORD(USE(fw), ATTEMPT(fw) + 1, 0, RETURNED));
			fw = 0;
			if
			:: !r -> goto return_done
			:: else -> holder[fb] = 0
			fi
		}
		returned[fb / BLOCKS]++;
		atomic {
			notify()
		}
	return_done:
		atomic {
			fb = 0;
			if
			:: after_finish == AFTER_CALL -> end_call()
			:: after_finish == AFTER_SWEEP -> after_finish = 0; goto sweep_next
			fi
		}

		/* ---- queue_begin(): rows_take() ---- */
	begin:
		atomic {
			if
			:: IS_GONE(q, 0) -> row[q] = 0
			:: IS_GONE(q, 1) -> row[q] = 1
			:: !OWNER(q, 0) -> row[q] = 0
			:: !OWNER(q, 1) -> row[q] = 1
			:: OWNER(q, 0) && OWNER(q, 1) && !IS_GONE(q, 0) && !IS_GONE(q, 1) ->
				goto done /* IPC_ENOSPC */
			fi;
			x = OWNER(q, row[q])
		}
		atomic {
			if
			:: OWNER(q, row[q]) == x -> OWNER(q, row[q]) = me + 1
			:: else -> x = 0; goto begin
			fi;
			if
			:: x && is_open[me] ->
				x = 0;
#ifndef FAULT_INHERIT
				clears = true;
				si = 0;
				sq = q;
				after_sweep = AFTER_BEGIN;
				goto sweep_block
#endif
			:: else
			fi;
			x = 0
		}
	begun:
		atomic {
			if
			:: q == 1 -> q = 0; goto begin
			:: else -> goto next
			fi
		}

		/* ---- queue_sweep() of sq: rows_are_dead() ---- */
	sweep:
		atomic {
			told = attention;
			if
			:: told == swept[sq] && !(lingers[sq] && ANY_ROW(IS_GONE, sq)) -> goto sweep_done
			:: else
			fi;
			if
			:: !ANY_ROW(IS_DEAD, sq) ->
				swept[sq] = told;
				lingers[sq] = false;
				goto sweep_done
			:: else
			fi;
			gone = (IS_GONE(sq, 0) -> 1 << OWNER(sq, 0) : 0) |
			       (IS_GONE(sq, 1) -> 1 << OWNER(sq, 1) : 0) |
			       (IS_GONE(sq, 2) -> 1 << OWNER(sq, 2) : 0);
			lingers[sq] = (IS_DEAD(sq, 0) && !IS_GONE(sq, 0)) ||
				      (IS_DEAD(sq, 1) && !IS_GONE(sq, 1)) ||
				      (IS_DEAD(sq, 2) && !IS_GONE(sq, 2));
			si = 0
		}
		/* sweep_one(); clear_one(): what is to be a new owner's is the dead one's */
	sweep_block:
		atomic {
			fb = sq * BLOCKS + si;
			fw = word[fb];
			after_finish = AFTER_SWEEP;
			if
			:: PHASE(fw) == FREE || PHASE(fw) == RETURNED -> goto sweep_next
			:: PHASE(fw) == ENDED && clears -> goto sweep_next
			:: PHASE(fw) == ENDED && !clears -> goto finish
			:: else
			fi
		}
		atomic {
			if
			:: clears && ROW(fw) != row[sq] -> goto sweep_next
			:: !clears && IS_ALIVE(sq, ROW(fw)) -> goto sweep_next
			:: else
			fi;
			if
			:: PHASE(fw) == LEASED -> goto return_item
			:: PHASE(fw) == MOVING -> goto resolve
#ifndef FAULT_GONE
			:: PHASE(fw) == READY && !clears && !IS_FREE(sq, ROW(fw)) -> goto sweep_next
#endif
			:: else
			fi
		}
		/* drop_ready() */
		atomic {
			if
			:: IS_COMMITTED(fb, fw) -> goto sweep_next
			:: else
			fi
		}
		atomic {
			give_ready(fb, fw)
		}
	sweep_next:
		atomic {
			fb = 0;
			fw = 0;
			after_finish = 0;
			si++;
			if
			:: si < BLOCKS -> goto sweep_block
			:: else -> si = 0
			fi
		}
		/* finish_halves() */
		atomic {
#ifndef FAULT_HALVES
			returned[sq]++;
#endif
			skip
		}
		atomic {
			notify();
			if
			:: clears -> clears = false; goto sweep_done
			:: else
			fi
		}
		atomic {
			if
			:: OWNER(sq, 0) && (gone >> OWNER(sq, 0)) & 1 -> OWNER(sq, 0) = 0
			:: else
			fi;
			if
			:: OWNER(sq, 1) && (gone >> OWNER(sq, 1)) & 1 -> OWNER(sq, 1) = 0
			:: else
			fi;
			if
			:: OWNER(sq, 2) && (gone >> OWNER(sq, 2)) & 1 -> OWNER(sq, 2) = 0
			:: else
			fi;
			gone = 0;
			swept[sq] = told
		}
	sweep_done:
		atomic {
			told = 0;
			sq = 0;
			if
			:: after_sweep == AFTER_ROOM -> after_sweep = 0; goto room
			:: after_sweep == AFTER_TAKE -> after_sweep = 0; goto take_again
			:: after_sweep == AFTER_BEGIN -> after_sweep = 0; goto begun
			:: after_sweep == AFTER_MOVE -> after_sweep = 0; goto dispose
			fi
		}

		/* ---- queue_resolve() of {fb, fw}: copy_find(), copy_settle() ---- */
	resolve:
#ifdef DEAD
		x = target[fb];
	settle:
		atomic {
			ab = x & 3;
			aw = word[ab];
			i = 0;
			if
			:: USE(aw) == TARGET_USE(x) + 1 && PHASE(aw) == FREE ->
				if
#ifndef FAULT_ITEM
				:: !ATTEMPT(aw) -> goto settle_not
#endif
				:: else -> goto settle_committed
				fi
			:: USE(aw) != TARGET_USE(x) && !(USE(aw) == TARGET_USE(x) + 1 && PHASE(aw) == FREE) ->
				goto settle_unknown
			:: USE(aw) == TARGET_USE(x) && PHASE(aw) == FREE -> goto settle_unknown
			:: USE(aw) == TARGET_USE(x) && PHASE(aw) > READY -> goto settle_committed
			:: USE(aw) == TARGET_USE(x) && PHASE(aw) == READY
			fi
		}
#ifdef FAULT_SETTLE
		atomic {
			if
			:: IS_COMMITTED(ab, aw) -> goto settle_committed
			:: else
			fi
		}
#endif
		i = IS_FREE(1, ROW(aw));
#ifndef FAULT_SETTLE
		atomic {
			if
			:: IS_COMMITTED(ab, aw) -> goto settle_committed
			:: else
			fi
		}
#endif
		atomic {
			if
			:: !i -> goto settle_unknown
			:: else
			fi;
			give_ready(ab, aw);
			if
			:: r -> goto settle_not
			:: else -> goto settle
			fi
		}
	settle_committed:
		atomic {
			x = 0;
			i = 0;
			ab = 0;
			aw = 0;
			after_end = AFTER_SWEEP;
			kind = COUNT_DEAD;
#ifndef FAULT_RESOLVE
			goto end_begin
#else
			goto return_item
#endif
		}
	settle_unknown:
		atomic {
			if
			:: target[fb] == x -> target[fb] = x | DOUBTFUL
			:: else
			fi;
			if
			:: word[fb] == fw -> is_in_doubt[item_of[fb]] = true
			:: else
			fi
		}
	settle_not:
		atomic {
			x = 0;
			i = 0;
			ab = 0;
			aw = 0;
			goto return_item
		}
#else
		assert(false);
#endif
	done:
		atomic {
			is_done[me] = true;
			if
			:: !is_open[me] -> lives[me] = false
			:: else
			fi;
			forget_all()
		}
	}
	unless
	{
		atomic {
			die[me] ? _;
			lives[me] = false;
			forget_all()
		}
	}
}

/* ---- deaths ---- */

inline wake_all()
{
#ifndef FAULT_WAKE
	notify()
#else
	skip
#endif
}

#ifdef KILL
proctype killer()
{
	byte p;

	if
	:: (KILL) & 1 -> p = 0; die[0] ! 0
	:: (KILL) & 2 -> p = 1; die[1] ! 0
	:: (KILL) & 4 -> p = 2; die[2] ! 0
	fi;
	atomic {
		is_open[p] = false;
		attention++;
		wake_all();
		p = 0
	}
}
#endif

#ifdef FENCE
proctype fencer()
{
	byte p;

	atomic {
		if
		:: (FENCE) & 1 -> p = 0
		:: (FENCE) & 2 -> p = 1
		:: (FENCE) & 4 -> p = 2
		fi;
		is_open[p] = false;
		attention++;
		wake_all();
		p = 0
	}
}
#endif

/* ---- the beginning, and the end ---- */

inline begin_worker(n, role, calls)
{
	lives[n] = true;
	is_open[n] = true;
	if
	:: !((role) & BEGIN) ->
		OWNER(0, n) = n + 1;
		OWNER(QUEUES - 1, n) = n + 1
	:: else
	fi;
	run member(n, role, calls)
}

/* Nobody sleeps beside an item, or one that a dead handle has. */
inline check_sleeper(n)
{
	if
	:: sleeps[n] && lives[n] && is_open[n] ->
		assert(n_firsts[0] == n_commits[0]);
		assert(PHASE(word[0]) != RETURNED && PHASE(word[1]) != RETURNED);
		assert(PHASE(word[0]) != LEASED || is_open[holder[0] - 1]);
		assert(PHASE(word[1]) != LEASED || is_open[holder[1] - 1]);
		assert(!is_shut)
	:: else
	fi;
	assert(is_done[n] || sleeps[n] || !lives[n])
}

inline end_worker(n)
{
	lives[n] = false;
	is_open[n] = false;
	woken[n] = true
}

inline check_item()
{
	assert(is_counted[i] == (fate[i] == DEADED || fate[i] == DROPPED));
	assert(fate[i] != WAITS);
	assert(fate[i] != DEADED || copies[i]);
	if
	:: copies[i] ->
		assert(fate[i] == DEADED || is_in_doubt[i]);
		assert(copies[i] == 2 || copies[i] == 4 || is_in_doubt[i])
	:: else
	fi
}

init
{
	byte i;

	atomic {
		for (i : 0 .. WAITING - 1) {
			word[i] = WORD(0, 1, 3, READY);
			entry[i] = ENTRY(FULL, 0, i, 0);
			position[i] = i;
			data[i] = i + 1;
			item_of[i] = i;
			is_item[i] = true;
			fate[i] = WAITS
		}
		i = 0;
#ifdef DOUBTED
		target[0] = DOUBTFUL;
		is_in_doubt[0] = true;
		copies[0] = 2;
#endif
		n_items = WAITING;
		n_commits[0] = WAITING;
		tail[0] = WAITING;
		begin_worker(0, ROLE0, CALLS0);
		begin_worker(1, ROLE1, CALLS1);
#if WORKERS > 2
		begin_worker(2, ROLE2, CALLS2);
#endif
#ifdef KILL
		run killer();
#endif
#ifdef FENCE
		run fencer();
#endif
	}
	timeout;
	atomic {
		check_sleeper(0);
		check_sleeper(1);
#if WORKERS > 2
		check_sleeper(2);
#endif
		end_worker(0);
		end_worker(1);
#if WORKERS > 2
		end_worker(2);
#endif
		attention++;
		begin_worker(LAST, LAST_OF_ALL, 99)
	}
	timeout;
	atomic {
		assert(is_done[LAST]);
		for (i : 0 .. QUEUES * BLOCKS - 1) {
			assert(PHASE(word[i]) == FREE)
		}
		for (i : 0 .. ITEMS - 1) {
			check_item()
		}
		assert(counter[0] >> 3 == n_ended[0] && counter[1] >> 3 == n_ended[1]);
		assert(n_commits[0] == n_acked + n_ended[0] + n_ended[1])
	}
}
