package daemon

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
)

// TestMain is the peer, too: it connects, says so, and does what it is told until its input ends.
func TestMain(m *testing.M) {
	if socket := os.Getenv("FINELINE_TEST_PEER"); socket != "" {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("connected\n")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(1)
		}
		_ = conn.Close()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestIdentify asks the real kernel about a process of another user, alive and dead.
func TestIdentify(t *testing.T) {
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "FINELINE_TEST_PEER="+socket)
	uid := uint32(os.Getuid())
	if uid == 0 {
		uid = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot run a process of another user: %v", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "connected\n" {
		t.Skipf("the other user's process cannot run here: %q, %v", line, err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p, err := Identify(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.PID != cmd.Process.Pid || p.UID != uid {
		t.Errorf("process %d of user %d, want %d of %d", p.PID, p.UID, cmd.Process.Pid, uid)
	}
	if err := p.Check(); err != nil {
		t.Errorf("alive: %v", err)
	}
	// The number of a process of another user is not that user's.
	if err := checkOwner(os.Getpid(), p.UID); os.Getuid() == 0 && !errors.Is(err, track.ErrPermission) {
		t.Errorf("our own number: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := p.Check(); !errors.Is(err, track.ErrGone) {
		t.Errorf("dead: %v", err)
	}
	if _, err := Listen(socket); err == nil {
		t.Error("two daemons on one socket")
	}
}

// TestANumberUsedAgain: the process that connected is dead, and its number another's of the same user.
func TestANumberUsedAgain(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := check(pidfd, os.Getpid(), uint32(os.Geteuid())); err != nil {
		t.Errorf("alive: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := check(pidfd, os.Getpid(), uint32(os.Geteuid())); !errors.Is(err, track.ErrGone) {
		t.Errorf("dead: %v", err)
	}
}

// TestListenReplacesADeadSocket.
func TestListenReplacesADeadSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "deep", "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as if it were killed
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(socket); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil {
		t.Error("a file was replaced")
	}
}
