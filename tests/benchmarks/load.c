/* Visitors on a schedule: requests are due whether or not the ones before them have been served.
 *
 *     load PORT RATE SECONDS keep|new CONNECTIONS PATH MARKS
 *
 * RATE requests a second for PATH. `new`: each on a connection of its own. `keep`: on kept-alive ones, taken in turn, of
 * which there are CONNECTIONS; one more is opened where all are busy, up to twice as many. A good response has status
 * 200, is complete, and has MARKS times "release=X;" in it. No request is tried again.
 *
 * Prints, when all is over, one line for each request: when it was due, when this program came round to it, when it was
 * sent and when it was answered (nanoseconds of CLOCK_MONOTONIC), what came of it (ok, mixed, or why it failed), and X.
 * The difference of the first two is this program's own lateness, which is part of the latencies measured. It
 * runs before everything else that wants the processor, as if the visitors were on another machine: at nice -20 it was
 * up to 4 ms late at p99.9, as a realtime process 0.1 to 0.6 ms. SIGTERM: no more requests; those under way are finished.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 32768, MOST = 8192, PATIENCE = 10 };

struct request {
	long long due, begun, sent, done;
	const char *outcome;
	char mark;
};

struct connection {
	int socket; /* -1: free */
	long request; /* -1: idle */
	int is_sent;
	size_t length;
	char text[ROOM];
};

static struct connection *connections[MOST]; /* by descriptor */
static int idle[MOST], idle_count; /* descriptors, the one that has been idle longest first */
static int open_count;
static struct request *requests;
static long total, begun, finished, *waiting, waiting_first, waiting_count;
static int is_keeping, wanted_connections, marks, poller;
static struct sockaddr_in server;
static char question[512];
static size_t question_length;

static volatile sig_atomic_t is_over;

static void end_early(int number)
{
	(void)number;
	is_over = 1;
}

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void finish(struct connection *connection, const char *outcome)
{
	struct request *request = &requests[connection->request];
	request->done = now();
	request->outcome = outcome;
	connection->request = -1;
	finished++;
}

static void drop(struct connection *connection)
{
	for (int i = 0; i < idle_count; i++)
		if (idle[i] == connection->socket) {
			memmove(idle + i, idle + i + 1, (--idle_count - i) * sizeof *idle);
			break;
		}
	close(connection->socket);
	connection->socket = -1;
	open_count--;
}

static void ask(struct connection *connection)
{
	ssize_t written = send(connection->socket, question, question_length, MSG_NOSIGNAL);
	connection->length = 0;
	connection->is_sent = 1;
	requests[connection->request].sent = now();
	if (written != (ssize_t)question_length) {
		finish(connection, "send");
		drop(connection);
	}
}

static void begin_on_new(long number)
{
	int one = 1;
	int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (socket_ < 0 || socket_ >= MOST)
		err(1, "socket");
	setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct connection *connection = connections[socket_];
	if (!connection)
		connection = connections[socket_] = calloc(1, sizeof *connection);
	connection->socket = socket_;
	connection->request = number;
	connection->is_sent = 0;
	open_count++;
	requests[number].sent = now();
	if (connect(socket_, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
		finish(connection, "connect");
		drop(connection);
		return;
	}
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = socket_};
	epoll_ctl(poller, EPOLL_CTL_ADD, socket_, &event);
}

static void begin(long number)
{
	if (idle_count && open_count >= wanted_connections) {
		struct connection *connection = connections[idle[0]];
		memmove(idle, idle + 1, --idle_count * sizeof *idle);
		connection->request = number;
		ask(connection);
	} else if (!is_keeping || open_count < 2 * wanted_connections) {
		begin_on_new(number);
	} else {
		waiting[waiting_first + waiting_count++] = number;
	}
}

static void begin_waiting(void)
{
	while (waiting_count && (idle_count || open_count < 2 * wanted_connections)) {
		waiting_count--;
		begin(waiting[waiting_first++]);
	}
}

/* Whether the response is all there; the body is then between the two pointers. */
static int is_complete(struct connection *connection, char **body, char **end)
{
	char *text = connection->text, *found;
	text[connection->length] = 0;
	*body = strstr(text, "\r\n\r\n");
	*end = text + connection->length;
	if (!*body)
		return 0;
	*body += 4;
	if ((found = strcasestr(text, "\r\nContent-Length:")) && found < *body)
		return *end - *body >= atol(found + 17);
	return connection->length > 5 && !memcmp(*end - 5, "0\r\n\r\n", 5); /* chunked: the last one is empty */
}

static const char *judge(struct connection *connection, const char *body)
{
	int count = 0;
	char first = 0, is_mixed = 0;
	if (strncmp(connection->text, "HTTP/1.1 200 ", 13))
		return "status";
	for (const char *mark = body; (mark = strstr(mark, "release=")); mark += 10, count++) {
		is_mixed |= first && first != mark[8];
		first = mark[8];
	}
	requests[connection->request].mark = first;
	if (count != marks)
		return "marks";
	return is_mixed ? "mixed" : "ok";
}

static void read_more(struct connection *connection)
{
	char *body, *end;
	for (;;) {
		ssize_t got = recv(connection->socket, connection->text + connection->length,
				   ROOM - 1 - connection->length, 0);
		if (got < 0 && errno == EAGAIN)
			return;
		if (got <= 0) {
			if (connection->request >= 0)
				finish(connection, got ? "reset" : "closed");
			drop(connection);
			return;
		}
		connection->length += got;
		if (connection->request >= 0 && is_complete(connection, &body, &end))
			break;
		if (connection->length == ROOM - 1 || connection->request < 0) {
			if (connection->request >= 0)
				finish(connection, "too-long");
			drop(connection);
			return;
		}
	}
	char *close_asked = strcasestr(connection->text, "\r\nConnection: close");
	finish(connection, judge(connection, body));
	if (!is_keeping || (close_asked && close_asked < body))
		drop(connection);
	else
		idle[idle_count++] = connection->socket;
}

static void handle(const struct epoll_event *event)
{
	struct connection *connection = connections[event->data.fd];
	if (connection->socket < 0)
		return;
	if (event->events & EPOLLOUT && connection->request >= 0 && !connection->is_sent) {
		int error = 0;
		socklen_t size = sizeof error;
		getsockopt(connection->socket, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error) {
			finish(connection, "connect");
			drop(connection);
			return;
		}
		ask(connection);
	}
	if (connection->socket >= 0 && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
		read_more(connection);
}

static void run(double rate, int timer)
{
	struct epoll_event events[256];
	long long start = now() + 50000000, ends = 0;
	for (long i = 0; i < total; i++)
		requests[i].due = start + (long long)(i * 1e9 / rate);
	ends = requests[total - 1].due + PATIENCE * 1000000000LL;
	while (finished < total && now() < ends) {
		if (is_over && begun < total) {
			total = begun;
			ends = now() + PATIENCE * 1000000000LL;
			continue;
		}
		long long due = begun < total ? requests[begun].due : ends;
		struct itimerspec when = {.it_value = {due / 1000000000, due % 1000000000}};
		timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
		int ready = epoll_wait(poller, events, 256, -1);
		for (; begun < total && requests[begun].due <= now(); begun++) {
			requests[begun].begun = now();
			begin(begun);
		}
		for (int i = 0; i < ready; i++)
			if (events[i].data.fd != timer)
				handle(&events[i]);
		begin_waiting();
	}
}

int main(int argc, char **argv)
{
	if (argc != 8)
		errx(2, "load PORT RATE SECONDS keep|new CONNECTIONS PATH MARKS");
	double rate = atof(argv[2]);
	total = (long)(rate * atof(argv[3]));
	is_keeping = !strcmp(argv[4], "keep");
	wanted_connections = atoi(argv[5]);
	marks = atoi(argv[7]);
	server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	question_length = snprintf(question, sizeof question, "GET %s HTTP/1.1\r\nHost: bench.test\r\n%s\r\n", argv[6],
				   is_keeping ? "" : "Connection: close\r\n");
	requests = calloc(total, sizeof *requests);
	waiting = calloc(total, sizeof *waiting);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){MOST, MOST});
	mlockall(MCL_CURRENT | MCL_FUTURE); /* where it may: a page fault would be latency */
	if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 5}))
		setpriority(PRIO_PROCESS, 0, -20);
	signal(SIGTERM, end_early);
	poller = epoll_create1(EPOLL_CLOEXEC);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = timer};
	epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
	run(rate, timer);
	for (long i = 0; i < total; i++) {
		struct request *request = &requests[i];
		if (!request->done)
			request->done = now();
		printf("%lld %lld %lld %lld %s %c\n", request->due, request->begun, request->sent, request->done,
		       request->outcome ? request->outcome : "timeout", request->mark ? request->mark : '-');
	}
	return 0;
}
