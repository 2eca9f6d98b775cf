package identity

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("FINELINE_TEST_WAIT") != "" {
		// A child that lives until its standard input is closed.
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child starts a process, names it, and returns how to end it.
func child(t *testing.T) (Process, func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FINELINE_TEST_WAIT=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	p.PID = cmd.Process.Pid
	if p.StartTicks, err = startTicks(p.PID); err != nil {
		t.Fatal(err)
	}
	return p, func() {
		stdin.Close()
		_ = cmd.Wait()
	}
}

func TestWatchSeesDeath(t *testing.T) {
	p, end := child(t)
	w, err := Host{}.Watch(p)
	if err != nil {
		end()
		t.Fatal(err)
	}
	defer w.Close()
	select {
	case <-w.Done():
		t.Error("a living process was called dead")
	default:
	}
	end()
	<-w.Done()
}

func TestWatchOfTheDeadAndOfAReusedNumber(t *testing.T) {
	p, end := child(t)
	reused := p
	reused.StartTicks++
	w, err := Host{}.Watch(reused)
	if err != nil {
		end()
		t.Fatal(err)
	}
	<-w.Done()
	w.Close()

	end()
	w, err = Host{}.Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	w.Close()
}

func TestWatchUnprovable(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	otherBoot, otherPIDs, otherTime, noPID := self, self, self, self
	otherBoot.BootID = "elsewhere"
	otherPIDs.PIDNamespace++
	otherTime.TimeNamespace++
	noPID.PID = -1
	for name, p := range map[string]Process{
		"zero": {}, "boot": otherBoot, "pid namespace": otherPIDs, "time namespace": otherTime, "pid": noPID,
	} {
		if _, err := (Host{}).Watch(p); !errors.Is(err, ErrUnprovable) {
			t.Errorf("%s: %v, want ErrUnprovable", name, err)
		}
	}
}

func TestWatchCloseWhileAlive(t *testing.T) {
	p, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	w, err := Host{}.Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.Close()
	select {
	case <-w.Done():
		t.Error("closing a watch called this process dead")
	default:
	}
}

func TestParseStartTicks(t *testing.T) {
	const rest = " S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 100"
	for _, name := range []string{"7 (plain)", "7 (has space)", "7 (has ) S 1)"} {
		got, err := parseStartTicks([]byte(name + rest))
		if err != nil || got != 987654 {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S 1", "7 (x) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 soon 1"} {
		if _, err := parseStartTicks([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
