// Preloaded into a program: its wall clock is CLOCK_SKEW seconds off. Clocks that measure how long something takes are right.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *skew = getenv("CLOCK_SKEW");
    if (result == 0 && clock == CLOCK_REALTIME && skew != NULL) {
        time->tv_sec += atol(skew);
    }
    return result;
}
