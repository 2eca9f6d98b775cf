package identity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Process names one process on one boot of one host. The zero value names nobody.
type Process struct {
	BootID        string `json:"boot_id"`
	PIDNamespace  uint64 `json:"pid_ns"`      // inode of /proc/self/ns/pid
	TimeNamespace uint64 `json:"time_ns"`     // inode of /proc/self/ns/time
	PID           int    `json:"pid"`         // in that PID namespace
	StartTicks    uint64 `json:"start_ticks"` // field 22 of /proc/PID/stat
}

// SameClock reports whether CLOCK_MONOTONIC reads the same in both processes.
func (p Process) SameClock(q Process) bool {
	return p.BootID != "" && p.BootID == q.BootID && p.TimeNamespace == q.TimeNamespace
}

// Comparable reports whether q's PID and start time can be judged from p.
func (p Process) Comparable(q Process) bool {
	return p.SameClock(q) && p.PIDNamespace != 0 && p.PIDNamespace == q.PIDNamespace
}

// Self names this process.
var Self = sync.OnceValues(readSelf)

func readSelf() (Process, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Process{}, fmt.Errorf("cannot name this process: %w; is /proc mounted?", err)
	}
	p := Process{BootID: strings.TrimSpace(string(boot)), PID: os.Getpid()}
	if p.PIDNamespace, err = namespaceInode("pid"); err != nil {
		return Process{}, err
	}
	// Kernels before 5.6 have no time namespaces: then all processes share namespace 0.
	if p.TimeNamespace, err = namespaceInode("time"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Process{}, err
	}
	if p.StartTicks, err = startTicks(p.PID); err != nil {
		return Process{}, fmt.Errorf("cannot name this process: %w", err)
	}
	return p, nil
}

func namespaceInode(kind string) (uint64, error) {
	link, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		return 0, fmt.Errorf("cannot name this process: %w", err)
	}
	number, ok := strings.CutPrefix(link, kind+":[")
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("cannot name this process: /proc/self/ns/%s is %q", kind, link)
	}
	return inode, nil
}

// startTicks reads when a process started. The command name in field 2 may hold spaces and
// parentheses, so fields are counted from the last ')' (proc(5)).
func startTicks(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTicks(stat)
}

func parseStartTicks(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("process status has no command name")
	}
	const startTimeAfterName = 22 - 3 // field 22, where field 3 is the first after the name
	fields := bytes.Fields(stat[end+1:])
	if len(fields) <= startTimeAfterName {
		return 0, fmt.Errorf("process status has %d fields after the name", len(fields))
	}
	return strconv.ParseUint(string(fields[startTimeAfterName]), 10, 64)
}
