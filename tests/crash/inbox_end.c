/* SPDX-License-Identifier: MIT */
/*
 * I-5: a sender stands still between what it says of its END and the END's commit, is held dead and
 * lives on.  Who takes its end over is killed at each instruction of that, and a third one comes:
 * the END never counts, neither for it nor for those who look on; nor does it when the first one
 * goes on.
 */
#include "libipc/channel/inbox.h"

#include <criterion/criterion.h>

#include "tests/support/inbox_scene.h"
#include "tests/support/step.h"

enum { FIRST = 1, VICTIM = 2, HEIR = 3, BEFORE = 7, NEVER = 8, END_SIZE = 16 };

static struct inbox_scene scene;
static struct inbox_sender first, victim, heir;
static struct inbox_now first_now;

static struct inbox_writer writer_of(struct inbox_sender *sender)
{
	return (struct inbox_writer){
		.word = &inbox_scene_shared(&scene)->ring.head,
		.tag = ring_tag(sender->out.head),
	};
}

static void must(int r, const char *what)
{
	inbox_scene_must(r == 0, what);
}

static void scene_make(void)
{
	static const uint64_t shape[] = INBOX_SHAPE(4096, 256, IPC_INBOX_FULL_FAIL);
	void *data;

	if (!scene.segment)
		inbox_scene_init(&scene, shape);
	inbox_scene_reset(&scene);
	must(inbox_scene_try_sender(&scene, &first, FIRST, (uint32_t)getpid()), "sender");
	must(inbox_begin_snapshot(&first, BEFORE, true), "begin");
	must(inbox_end_snapshot(&first, 0, true), "end");
	must(inbox_begin_snapshot(&first, NEVER, true), "begin");
	must(inbox_send_chunk(&first, "chunk", 5, true), "chunk");

	/* So far it comes with its END. */
	first.out.keep = 0;
	must(ring_claim(&first.out, END_SIZE, &data), "claim");
	first_now = first.now;
	must(inbox_end_write(inbox_scene_shared(&scene)->sent, writer_of(&first), &first_now,
			     first.out.end, NEVER, 0),
	     "what is said of the END");
	inbox_scene_end(&scene, FIRST);
}

static void take_over(void *arg)
{
	(void)arg;
	(void)!inbox_scene_try_sender(&scene, &victim, VICTIM, 0);
}

static void expect_before(long n)
{
	const struct inbox_shared *shared = inbox_scene_shared(&scene);
	uint64_t head = atomic_load(&shared->ring.head);

	cr_assert_eq(inbox_now(shared->sent, ring_position(head)).generation, BEFORE,
		     "killed before instruction %ld", n);
}

static void check(void *arg, long n)
{
	struct inbox_now late = first.now;
	int r;

	(void)arg;
	inbox_scene_end(&scene, VICTIM);
	r = inbox_scene_try_sender(&scene, &heir, HEIR, 0);
	cr_assert_eq(r, 0, "killed before instruction %ld: %d", n, r);
	cr_assert_eq(heir.now.generation, BEFORE, "killed before instruction %ld", n);
	expect_before(n);

	r = inbox_end_write(inbox_scene_shared(&scene)->sent, writer_of(&first), &late,
			    first.out.end, NEVER, 0);
	cr_assert_eq(r, IPC_ESTALE, "killed before instruction %ld: %d", n, r);
	for (unsigned i = 0; i < 20; ++i) {
		r = inbox_send_frame(&heir, i, "frame", 5, true);
		cr_assert_eq(r, 0, "killed before instruction %ld: frame: %d", n, r);
		expect_before(n);
	}
	scene_make();
}

Test(inbox_end, what_was_not_committed_never_counts, .timeout = 60)
{
	struct step_case step = {.operation = take_over, .check = check, .stride = 1};

	scene_make();
	cr_assert_gt(step_run(&step, NULL), 100);
	inbox_scene_deinit(&scene);
}
