/* A team beside other programs: how long its idle threads look for work before they sleep.
 *
 *     crowd_enter(threads);       once in the thread that starts teams
 *     crowd_look();               before each parallel region: a look at the clock, and every 50 ms at the team's waiting
 *
 * The threads' number and what each computes never change, so results do not either. */
#ifndef HORN_CPU_CROWD_H
#define HORN_CPU_CROWD_H

#include <stdbool.h>

/* What a team's waiting asks for. Pure, so that it can be tested without a second program. */
struct crowd_state {
    double until; /* in a crowd: when to try without */
    double stay;  /* how long the next crowd stands, in seconds */
    bool crowded; /* a crowd stands for this team */
    bool trial;   /* it was just sent away */
};

/* `waited`: the seconds that the team's threads could have run and did not, all together, in the last `seconds` up to `now`.
 * Changes *state; its .crowded says what is wanted. A fresh state is all zero. */
void crowd_judge(struct crowd_state *state, double now, double seconds, double waited);

/* Watches the calling thread and its OpenMP team of that size from here on. */
void crowd_enter(int threads);

/* Looks whether the team gets its cores, and makes it patient or not. Nothing outside a thread that called crowd_enter(). */
void crowd_look(void);

#endif
