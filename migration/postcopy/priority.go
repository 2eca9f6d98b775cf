package postcopy

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// backgroundNice is how much lower the priority of background threads is. A thread that was woken by a request,
// or by its answer, must not wait for the end of a background thread's time slice (a millisecond and more, ten
// times an answer). Measured on two busy processors, a page was in place within 300 to 600 µs at the 99th
// percentile with 0, 240 to 2300 with 5, 170 to 260 with 10. Beside a guest CPU that computes all the time a
// background thread still has a tenth of a processor at 10, so that it ends; at 19 it had a sixtieth.
const backgroundNice = 10

// startBackground is start on a thread of its own with the background's priority. The thread ends with the
// task, since an unprivileged one could not be given its priority back.
func (g *group) startBackground(task func() error) {
	g.start(func() error {
		runtime.LockOSThread()
		addProcs(1)
		defer addProcs(-1)
		// The call returns 20 minus the nice value (getpriority(2), C library/kernel differences). Who may not
		// be asked stays as he is: that is slower, and right.
		if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-raw+backgroundNice)
		}
		return task()
	})
}

var procs sync.Mutex

// addProcs changes how many threads may run Go code at a time. The kernel puts a background thread aside, and
// the Go scheduler does not know: without one more place the goroutines that are in a hurry would wait for that
// thread's. Measured on two processors: 110 µs in place of 270 µs for the median fault.
func addProcs(n int) {
	procs.Lock()
	defer procs.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}
