/* The floor of a pause: what any program has to do that stops a prefork httpd, sees it stopped, and swaps.
 *
 *     floor MASTER STAGED LIVE
 *
 * Prints the nanoseconds from the first SIGSTOP to the last SIGCONT. The looks are those of swapd's window, so that the
 * ratio compares like with like: the master stopped and seen; its children stopped; its list of children read again;
 * and all seen at rest in one last round without a new one. Before that round the last ones that were signalled are
 * awaited, as the others have stopped meanwhile: most often it then is the only round.
 *
 * What it leaves out, and swapd has: the search for the masters, names and PID namespaces; processes that somebody else
 * had stopped; children of children; threads; a record of what is stopped, and a guardian that resumes it; a deadline;
 * signals held off; the listeners' queues; every error but those that would make the figure worthless.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, LAST = 8, EAGER_LOOKS = 50, SPIN = 50000 };

struct process {
	int pid, pidfd, stat;
};

static struct process processes[MOST]; /* the master comes first */
static int count;
static int children_file;

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* A process that ended before it could be opened is left out. */
static void hold(int pid)
{
	char path[64];
	struct process *process = &processes[count];
	if (count == MOST)
		errx(1, "more than %d processes", MOST);
	process->pid = pid;
	process->pidfd = syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	process->stat = open(path, O_RDONLY | O_CLOEXEC);
	if (process->pidfd >= 0 && process->stat >= 0)
		count++;
}

static int is_known(int pid)
{
	for (int i = 0; i < count; i++)
		if (processes[i].pid == pid)
			return 1;
	return 0;
}

/* Holds the master's children that are new. The list comes in the order of their birth, as ours does: a child is
 * looked for among the known ones only from where the last one was found. */
static void hold_children(void)
{
	static char text[MOST * 8];
	ssize_t length = 0, got;
	int expected = 1;
	/* The kernel gives a page at a time. */
	while ((got = pread(children_file, text + length, sizeof text - 1 - length, length)) > 0)
		length += got;
	if (got < 0)
		err(1, "children");
	text[length] = 0;
	for (char *rest = text, *end;; rest = end) {
		int pid = strtol(rest, &end, 10);
		if (end == rest)
			return;
		if (expected < count && processes[expected].pid == pid)
			expected++;
		else if (!is_known(pid))
			hold(pid);
	}
}

static void deliver(int from, int to, int number)
{
	for (int i = from; i < to; i++)
		if (syscall(SYS_pidfd_send_signal, processes[i].pidfd, number, NULL, 0) && errno != ESRCH)
			err(1, "signal %d to %d", number, processes[i].pid);
}

static int is_at_rest(const struct process *process)
{
	char line[512];
	ssize_t length = pread(process->stat, line, sizeof line - 1, 0);
	if (length <= 0)
		return 1; /* it is gone */
	line[length] = 0;
	return strchr("TZX", strrchr(line, ')')[2]) != NULL;
}

/* Until all of them rest; whether they did so at the first look. */
static int await(int from, int to)
{
	int looks = 0, restless[MOST], waiting = 0;
	for (int i = from; i < to; i++)
		restless[waiting++] = i;
	for (;;) {
		int left = 0;
		for (int i = 0; i < waiting; i++)
			if (!is_at_rest(&processes[restless[i]]))
				restless[left++] = restless[i];
		looks++;
		waiting = left;
		if (!waiting)
			return looks == 1;
		if (looks < EAGER_LOOKS)
			sched_yield();
		else
			nanosleep(&(struct timespec){.tv_nsec = SPIN}, NULL);
	}
}

int main(int argc, char **argv)
{
	char path[64];
	struct rlimit limit;
	if (argc != 4)
		errx(2, "floor MASTER STAGED LIVE");
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (setpriority(PRIO_PROCESS, 0, -10)) /* as swapd's unit */
		err(1, "setpriority");
	int master = atoi(argv[1]);
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", master, master);
	children_file = open(path, O_RDONLY | O_CLOEXEC);
	hold(master);
	if (!count || children_file < 0)
		err(1, "%s", path);
	hold_children();

	long long begin = now();
	deliver(0, 1, SIGSTOP);
	await(0, 1);
	deliver(1, count, SIGSTOP);
	for (int i = count - 1; i > 0 && i >= count - LAST; i--)
		await(i, i + 1);
	for (int is_quiet = 0; !is_quiet;) {
		int before = count;
		hold_children();
		deliver(before, count, SIGSTOP);
		is_quiet = await(0, count) && count == before;
	}
	int failed = syscall(SYS_renameat2, AT_FDCWD, argv[2], AT_FDCWD, argv[3], 2 /* RENAME_EXCHANGE */);
	int number = errno;
	deliver(1, count, SIGCONT);
	deliver(0, 1, SIGCONT);
	long long end = now();

	if (failed)
		errx(1, "renameat2: %s", strerror(number));
	printf("%lld %d\n", end - begin, count);
	return 0;
}
