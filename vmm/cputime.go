package vmm

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// OwnCPUTime is the processor time that this process has taken so far without that of the machine's vCPU threads: a guest that
// spins takes all it gets, whatever the VMM does. What a vCPU's thread does for the VMM between two entries is left out with it.
// Time of vCPUs that have ended stays out. It is for differences, while the process runs one machine.
func (m *Machine) OwnCPUTime() (time.Duration, error) {
	m.mu.Lock()
	cpus := m.cpus
	m.mu.Unlock()
	own, err := cpuClock(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return 0, fmt.Errorf("processor time of this process: %w", err)
	}
	for _, c := range cpus {
		took, err := c.cpuTime()
		if err != nil {
			return 0, fmt.Errorf("processor time of vCPU %d: %w", c.id, err)
		}
		own -= took
	}
	return own, nil
}

// cpuTime is what the vCPU's thread takes of a processor, or has taken until its end.
func (c *vcpu) cpuTime() (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.is == gone {
		return c.took, nil
	}
	// The clock of another thread, linux/posix-timers_types.h: ~tid << 3 | CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED. It is there, since a
	// thread that ends says first that it is gone.
	return cpuClock(int32(^c.tid<<3 | 4 | 2))
}

func cpuClock(id int32) (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(id, &now)
	return time.Duration(now.Nano()), err
}
