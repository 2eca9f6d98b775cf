package usage

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Times are the processor times of a process at one instant.
type Times struct {
	process time.Duration
	threads map[string]time.Duration // by thread id
}

// ReadTimes reads those of a process that has not ended.
func ReadTimes(pid int) (Times, error) {
	// The clock of another process, linux/posix-timers_types.h: ~pid << 3 | CPUCLOCK_SCHED.
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &now); err != nil {
		return Times{}, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	t := Times{process: time.Duration(now.Nano()), threads: map[string]time.Duration{}}
	return t, eachThread(pid, "schedstat", func(tid, text string) error {
		digits, _, _ := strings.Cut(text, " ") // nanoseconds on a processor
		ns, err := strconv.ParseInt(digits, 10, 64)
		t.threads[tid] = time.Duration(ns)
		return err
	})
}

// Beside is what the process took from one instant to a later one beside its vCPUs, which VCPUs has named.
func Beside(vcpus []string, from, to Times) time.Duration {
	took := to.process - from.process
	for _, tid := range vcpus {
		took -= to.threads[tid] - from.threads[tid]
	}
	return max(0, took)
}

// VCPUs are the ids of the threads that have been in a guest.
func VCPUs(pid int) ([]string, error) {
	var vcpus []string
	err := eachThread(pid, "stat", func(tid, text string) error {
		in, err := inGuest(text)
		if in {
			vcpus = append(vcpus, tid)
		}
		return err
	})
	return vcpus, err
}

// inGuest reads /proc/PID/stat: does guest_time, field 43 of proc(5), count?
func inGuest(stat string) (bool, error) {
	end := strings.LastIndexByte(stat, ')') // of the name, which may have blanks and brackets
	const guestTime = 43 - 3                // the state, field 3, follows the name
	fields := strings.Fields(stat[end+1:])
	if len(fields) <= guestTime {
		return false, fmt.Errorf("/proc/PID/stat has no guest_time: %q", stat)
	}
	return fields[guestTime] != "0", nil
}

func eachThread(pid int, file string, fn func(tid, text string) error) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, dir := range threads {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue // the thread has just ended
		}
		if err := fn(filepath.Base(dir), string(text)); err != nil {
			return fmt.Errorf("%s/%s: %w", dir, file, err)
		}
	}
	return nil
}

// Memory is resident memory in bytes.
type Memory struct {
	PeakBytes   uint64 // the most that was ever resident at once, all mappings counted
	SharedBytes uint64 // what is mapped of shared memory now; a page that is mapped twice counts twice
	MemfdBytes  uint64 // of the open memfds, each page once
}

// ReadMemory reads that of a process. It holds the process up for no longer than a look into /proc.
func ReadMemory(pid int) (m Memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	if m.PeakBytes, err = kib(string(status), "VmHWM"); err != nil {
		return m, err
	}
	if m.SharedBytes, err = kib(string(status), "RssShmem"); err != nil {
		return m, err
	}
	m.MemfdBytes, err = memfdBytes(pid)
	return m, err
}

func memfdBytes(pid int) (sum uint64, err error) {
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	met := map[uint64]bool{} // a file may be open twice
	for _, fd := range open {
		name, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(name, "/memfd:") {
			continue // closed meanwhile, or something else
		}
		var st unix.Stat_t
		if err := unix.Stat(fd, &st); err == nil && !met[st.Ino] {
			met[st.Ino] = true
			sum += uint64(st.Blocks) * 512 // as stat(2) counts
		}
	}
	return sum, nil
}

// GuestBytes is how much of a guest's RAM of so many bytes is resident in a process that keeps it in private memory, as
// QEMU does.
func GuestBytes(pid int, sizeBytes uint64) (uint64, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	return guestResident(maps, sizeBytes)
}

// guestResident adds up the resident part of the private mappings in /proc/PID/smaps that are large enough for the guest.
func guestResident(smaps io.Reader, sizeBytes uint64) (sum uint64, err error) {
	inGuest := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		var start, end uint64
		var access string
		// A mapping begins with "7f0000000000-7f0040000000 rw-p ... NAME".
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x %s ", &start, &end, &access); n == 3 {
			// Its neighbours may have been merged with it.
			inGuest = strings.HasPrefix(access, "rw-p") && end-start >= sizeBytes
		}
		if inGuest && strings.HasPrefix(s.Text(), "Rss:") {
			rss, err := kib(s.Text(), "Rss")
			if err != nil {
				return 0, err
			}
			sum += rss
		}
	}
	return sum, nil
}

// kib reads the line "KEY:   123 kB" and returns bytes.
func kib(text, key string) (uint64, error) {
	_, rest, ok := strings.Cut(text, key+":")
	var n uint64
	if _, err := fmt.Sscanf(rest, "%d kB", &n); !ok || err != nil {
		return 0, fmt.Errorf("/proc has no %s in kB", key)
	}
	return n << 10, nil
}
