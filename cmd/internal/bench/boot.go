package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/images"
)

const bootGuestMiB = 64

// residentLimitMiB is the promise for an idle VMM.
const residentLimitMiB = 30

// Boot measures from exec to the guest's first byte, for the tiny guest hello, and
// what an idle VMM keeps in memory beyond its guest's RAM. exe is Fineline's binary.
func Boot(ctx context.Context, exe string, runs int, progress Progress) (*Report, error) {
	r, err := newReport("boot")
	if err != nil {
		return nil, err
	}
	version, err := qemu.Version(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fineline-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kernel, err := extract(dir, "hello")
	if err != nil {
		return nil, err
	}
	ours, microVM, pc, err := bootRuns(ctx, exe, kernel, runs, progress)
	if err != nil {
		return nil, err
	}
	const name = "exec to first guest byte"
	r.add(name, "ms", "QEMU "+version+" microvm, all extras off", ours, microVM)
	r.add(name, "ms", "QEMU "+version+" pc, its default", ours, pc)
	resident, err := residentMiB(ctx, exe, dir)
	if err != nil {
		return nil, err
	}
	r.add("resident memory beyond guest RAM", "MiB", "limit", []float64{resident}, []float64{residentLimitMiB})
	return r, nil
}

// bootRuns returns milliseconds.
func bootRuns(ctx context.Context, exe, kernel string, runs int, progress Progress) (ours, microVM, pc []float64, err error) {
	memory := strconv.Itoa(bootGuestMiB) + "M"
	guest := []string{"-m", memory, "-serial", "stdio", "-kernel", kernel}
	candidates := []struct {
		into    *[]float64
		program string
		args    []string
	}{
		{&ours, exe, []string{"run", "--kernel", kernel, "--memory", memory}},
		{&microVM, qemu.Program, append(qemu.MicroVM(), guest...)},
		{&pc, qemu.Program, append(qemu.Common(), guest...)},
	}
	for run := range runs {
		for _, c := range candidates {
			ms, err := firstByte(ctx, c.program, c.args...)
			if err != nil {
				return nil, nil, nil, err
			}
			*c.into = append(*c.into, ms)
		}
		progress(run+1, runs)
	}
	return ours, microVM, pc, nil
}

// extract writes a builtin guest to a file, so that both VMMs read the same.
func extract(dir, name string) (string, error) {
	image, ok := images.Builtin(name)
	if !ok {
		return "", fmt.Errorf("no builtin guest %q", name)
	}
	path := filepath.Join(dir, name+".elf")
	return path, os.WriteFile(path, image, 0o600)
}

// firstByte runs a VMM whose guest writes to its standard output, and returns the
// milliseconds until the first byte came.
func firstByte(ctx context.Context, program string, args ...string) (float64, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var b [1]byte
	_, readErr := out.Read(b[:])
	elapsed := time.Since(start)
	_ = cmd.Process.Kill() // the rest of the run does not matter
	_ = cmd.Wait()         // killed: an error or not
	if readErr != nil {
		return 0, fmt.Errorf("%s: the guest said nothing: %w: %s", program, readErr, stderr.String())
	}
	return milliseconds(elapsed), nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// residentMiB runs an idle machine and reads what it keeps beside guest RAM.
func residentMiB(ctx context.Context, exe, dir string) (_ float64, err error) {
	v, err := process.Start(ctx, exe, dir, "idle", nil, "--kernel", "builtin:hello", "--cmdline", "halt=spin",
		"--memory", strconv.Itoa(bootGuestMiB)+"M", "--serial", "none")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.API.Pause(ctx); err != nil {
		return 0, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.PID()))
	if err != nil {
		return 0, err
	}
	return ownMiB(string(status))
}

// ownMiB reads /proc/PID/status. Guest RAM is in memfds, which count as RssShmem, so the
// other two are the VMM's own.
func ownMiB(status string) (float64, error) {
	var sum float64
	for _, key := range []string{"RssAnon", "RssFile"} {
		_, rest, ok := strings.Cut(status, key+":")
		if !ok {
			return 0, fmt.Errorf("/proc/PID/status has no %s", key)
		}
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		kib, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/status: %s: %w", key, err)
		}
		sum += kib
	}
	return sum / 1024, nil
}
