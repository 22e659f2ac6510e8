/* SPDX-License-Identifier: MIT */

/*
 * C-3 C-5
 *
 * How the producer's end of a ring changes hands (libipc/core/ring_take.c, ring_ban.c) as a model for
 * spin: handles that publish, take the end from each other, living or dead, go on with what they had
 * claimed, and one that receives.  tests/model/run checks it.
 *
 * A step is one load, store or exchange of a shared word, in the order of the C code; the names of
 * the C functions stand above.  What follows from a word is decided in the same step.  Steps are
 * joined only where nobody can tell the difference, or where it would be harder to be right:
 * - a slot of ban[] is looked at in one step; it is changed by one exchange at a time
 * - whether somebody is gone and the exchange that gives his slot back: who is gone stays so
 * - tail and head for ban_is_ahead(): they only grow
 *
 * Records are one unit long, and the lap does not come round: that what is banned is passed by on
 * later laps is left to the tests, as are the next record's head, strays, several claims, and weak memory (the fence is the
 * order of steps).
 *
 * What is to hold stands in assert(): nobody writes to what somebody else has published; what is
 * received was published, each record once, and in the end all of it.
 *
 * MEMBERS   handles, the first has the end in the beginning; the others take it, older ones too
 * RECORDS   how many each publishes
 * KILL      set of bits: who may die, between any two steps; each of them may
 * FAULT_... breaks the protocol on purpose: spin has to find an error:
 *   CHECK     who claims does not look at the tag after it told the limit
 *   FENCE     the limit is read before the tag is changed
 *   LIMIT     the limit is told by a store
 *   OWNER     the tag is changed by who is not the owner any more
 *   NEWER     bans of owners that are not before this one are completed as well
 *   PENDING   what a dead taker left is not completed
 *   AHEAD     a ban is given back before the jump was made
 *   SLOT      whoever needs a slot takes one whose range is about to be told
 */

#ifndef MEMBERS
#define MEMBERS 3
#endif
#ifndef RECORDS
#define RECORDS 1
#endif
#ifndef KILL
#define KILL 0
#endif

#define BANS      3
#define POSITIONS 15
#define NOWHERE   15

/* {tag 4 bits, position 4 bits}; of a ban's words {who 4 bits, position 4 bits} */
#define WORD(tag, position) (((tag) << 4) | (position))
#define POSITION(word)      ((word) & 15)
#define TAG(word)           ((word) >> 4)

byte head = WORD(1, 0), limit = WORD(1, 0), owner = 1, tail;
byte who[BANS], from[BANS], to[BANS];

/* ---- what is known from outside ---- */

bool lives[MEMBERS + 2];   /* by handle, from 1 */
bool is_done[MEMBERS + 2];
byte claimed[MEMBERS + 2]; /* where it goes on writing as long as it lives */
byte published[POSITIONS + 1];
byte n_published, n_received;

#define IS_KNOWN(i)  (TAG(to[i]) == who[i])
#define IS_GONE(h)   (!lives[h])
#define IS_BEFORE(h) ((h) < me)

#ifndef FAULT_AHEAD
#define IS_AHEAD(i) (tail <= POSITION(from[i]) && POSITION(from[i]) <= POSITION(head))
#else
#define IS_AHEAD(i) (tail <= POSITION(from[i]) && POSITION(from[i]) < POSITION(head))
#endif
#define IS_OVER(i) (who[i] && IS_GONE(who[i]) && (!IS_KNOWN(i) || !IS_AHEAD(i)))

#ifndef FAULT_NEWER
#define IS_PENDING(i) (who[i] && IS_BEFORE(who[i]) && !IS_KNOWN(i))
#else
#define IS_PENDING(i) (who[i] && !IS_KNOWN(i))
#endif

/* Where the ban in this slot leads to from `position`. */
#define JUMP(i, position)                                                                          \
	(who[i] && IS_KNOWN(i) && POSITION(from[i]) == (position) -> POSITION(to[i]) : (position))

/* ring_jump() */
inline jump(position, ret)
{
	ret = JUMP(0, position);
	ret = (JUMP(1, position) > ret -> JUMP(1, position) : ret);
	ret = (JUMP(2, position) > ret -> JUMP(2, position) : ret);
}

inline check_writes()
{
	assert(!published[at] || published[at] == me)
}

proctype member(byte me; bool has_end) provided (lives[me])
{
	byte seen, mine, told, at, i, seen_from, seen_to, n, reads;

	if
	:: has_end -> mine = WORD(1, 0); told = mine; goto produce
	:: else
	fi;

	/* ---- owner_take() ---- */
owner_again:
	atomic {
		seen = owner;
		if
		:: seen > me -> goto done /* IPC_ESTALE */
		:: seen && seen < me && !IS_GONE(seen) -> skip
		:: else -> goto owner_take
		fi;
		/* ring_ban() */
		if
		:: who[0] == seen || who[1] == seen || who[2] == seen -> goto owner_take
		:: else -> i = 0
		fi
	}
ban_again:
	atomic {
		if
		:: i == BANS -> goto done /* IPC_EBUSY */
#ifndef FAULT_SLOT
		:: i < BANS && IS_OVER(i) && IS_KNOWN(i) -> who[i] = 0
#else
		:: i < BANS && IS_OVER(i) -> who[i] = 0
#endif
		:: else
		fi
	}
	atomic {
		if
		:: !who[i] -> who[i] = seen; i = 0
		:: else -> i++; goto ban_again
		fi
	}
owner_take:
	atomic {
		i = 0;
		if
		:: owner == seen -> owner = me; seen = 0
		:: else -> seen = 0; goto owner_again
		fi
	}

	/* ---- tag_take() ---- */
tag_again:
	mine = head;
#ifdef FAULT_FENCE
	reads = POSITION(limit);
#endif
#ifndef FAULT_OWNER
	atomic {
		if
		:: owner != me -> goto done
		:: else
		fi
	}
#endif
	atomic {
		if
		:: head == mine -> head = WORD(TAG(mine) + 1, POSITION(mine)); mine = head
		:: else -> goto tag_again
		fi
	}

	/* ---- take_memory(): ring_has_pending_bans() ---- */
	i = 0;
pending_next:
	atomic {
		if
		:: i < BANS && IS_PENDING(i) && IS_OVER(i) -> who[i] = 0; i++; goto pending_next
		:: i < BANS && IS_PENDING(i) && !IS_OVER(i) -> n = 1; i++; goto pending_next
		:: i < BANS && !IS_PENDING(i) -> i++; goto pending_next
		:: i == BANS && !n -> i = 0; goto jump_over
		:: i == BANS && n -> i = 0; n = 0
		fi
	}
#ifdef FAULT_PENDING
	goto jump_over;
#endif
	/* complete_bans() */
#ifndef FAULT_FENCE
	reads = POSITION(limit);
#endif
complete_next:
	atomic {
		if
		:: i == BANS -> i = 0; goto jump_over
		:: i < BANS && !IS_PENDING(i) -> i++; goto complete_next
		:: i < BANS && IS_PENDING(i) -> seen = who[i]
		fi
	}
	atomic {
		if
		:: reads <= POSITION(mine) ->
			if
			:: who[i] == seen -> who[i] = 0
			:: else
			fi;
			seen = 0;
			i++;
			goto complete_next
		:: else -> seen_from = from[i]; seen_to = to[i]
		fi
	}
	/* ban_complete() */
	atomic {
		if
		:: who[i] != seen || TAG(seen_to) == seen -> goto complete_done
		:: else
		fi
	}
	atomic {
		if
		:: from[i] != seen_from -> goto complete_next
		:: else -> from[i] = WORD(seen, POSITION(mine))
		fi
	}
	atomic {
		if
		:: to[i] != seen_to -> goto complete_next
		:: else -> to[i] = WORD(seen, reads)
		fi
	}
complete_done:
	atomic {
		seen = 0;
		seen_from = 0;
		seen_to = 0;
		i++;
		goto complete_next
	}

	/* ---- jump_over() ---- */
jump_over:
	atomic {
		reads = 0;
		jump(POSITION(mine), at)
	}
	/* take_limit() */
	seen = limit;
limit_again:
	atomic {
		if
		:: TAG(head) != TAG(mine) -> goto done
		:: else
		fi
	}
	atomic {
		told = WORD(TAG(mine), at);
		if
#ifndef FAULT_LIMIT
		:: limit != seen -> seen = limit; goto limit_again
#endif
		:: else -> limit = told; seen = 0
		fi
	}
	atomic {
		if
		:: TAG(head) != TAG(mine) -> goto done
		:: else
		fi
	}
	atomic {
		if
		:: head != mine -> goto done
		:: head == mine && at != POSITION(mine) -> head = WORD(TAG(mine), at); mine = head
		:: else
		fi
	}

	/* ---- ring_send(): ring_tell_limit() ---- */
produce:
	atomic {
		at = POSITION(mine);
		assert(at < POSITIONS);
		if
#ifndef FAULT_LIMIT
		:: limit != told -> goto done
#endif
		:: else -> told = WORD(TAG(mine), at + 1); limit = told
		fi
	}
#ifndef FAULT_CHECK
	atomic {
		if
		:: TAG(head) != TAG(mine) -> goto done
		:: else -> claimed[me] = at
		fi
	}
#else
	claimed[me] = at;
#endif
	atomic {
		check_writes()
	}
	/* ring_publish() */
	atomic {
		if
		:: head == mine ->
			check_writes();
			assert(!published[at]);
			published[at] = me;
			n_published++;
			head = WORD(TAG(mine), at + 1);
			mine = head;
			claimed[me] = NOWHERE;
			n++;
			if
			:: n < RECORDS -> goto produce
			:: else -> goto done
			fi
		:: else
		fi
	}
	/* Overtaken, and going on with it, however late. */
	atomic {
		check_writes()
	}
done:
	atomic {
		is_done[me] = true;
		seen = 0;
		mine = 0;
		told = 0;
		i = 0;
		n = 0;
		at = 0;
		reads = 0;
		seen_from = 0;
		seen_to = 0
	}
}

#define NOBODY_WRITES(position)                                                                    \
	(claimed[1] != (position) && claimed[2] != (position) && claimed[3] != (position))

/* ring_step(), ring_release() */
proctype reader()
{
	byte at;

	do
	:: atomic {
		tail != POSITION(head) ->
		jump(tail, at);
		if
		:: at != tail -> assert(at <= POSITION(head)); tail = at
		:: else ->
			assert(published[tail]);
			assert(NOBODY_WRITES(tail));
			tail++;
			n_received++
		fi;
		at = 0
	}
	od
}

proctype killer(byte h)
{
	atomic {
		lives[h] = false;
		claimed[h] = NOWHERE
	}
}

init
{
	byte i;

	atomic {
		for (i : 1 .. MEMBERS) {
			lives[i] = true
		}
		for (i : 0 .. MEMBERS + 1) {
			claimed[i] = NOWHERE
		}
		run reader();
		run member(1, true);
		run member(2, false);
#if MEMBERS > 2
		run member(3, false);
#endif
		if
		:: (KILL) & 2 -> run killer(1)
		:: else
		fi;
		if
		:: (KILL) & 4 -> run killer(2)
		:: else
		fi;
		if
		:: (KILL) & 8 -> run killer(3)
		:: else
		fi
	}
	timeout;
	atomic {
		assert(n_received == n_published);
		assert(tail == POSITION(head));
		/* The newest has it, or died. */
		assert(!lives[MEMBERS] || is_done[MEMBERS]);
		assert(!lives[MEMBERS] || TAG(limit) == TAG(head))
	}
}
