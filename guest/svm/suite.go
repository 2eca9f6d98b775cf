package svm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
	"github.com/fineline-vmm/fineline/images/linux"
)

// Suite is one run of Go tests in one emulated machine. It must run inside
// this module.
type Suite struct {
	Packages    []string          // patterns as for go test; those without tests are left out
	Programs    []string          // main packages to put into /bin, by the last part of their path
	Files       map[string]string // more files: path in the machine to path here
	TestFlags   []string          // for each test binary, such as -test.run=RE
	Env         []string          // more environment for the tests
	Timeout     time.Duration     // for everything inside the machine
	CPUs        int
	MemoryBytes uint64
	ConsoleLog  string    // file for the machine's console, "" for one that is kept only if the machine fails
	Shell       string    // if not empty, run this by sh in place of tests
	Verbose     bool      // print the output of passing tests too
	Out         io.Writer // the report, or the shell's output
	JSON        io.Writer // test2json events, one a line; nil for none
}

// ErrTestsFailed: the run was complete and at least one test failed.
var ErrTestsFailed = errors.New("tests failed")

// Run compiles, boots, runs and reports. It returns ErrTestsFailed when tests
// failed, or another error when the run could not be completed.
func (s *Suite) Run(ctx context.Context) (Summary, error) {
	work, err := os.MkdirTemp("", "fineline-svm-")
	if err != nil {
		return Summary{}, err
	}
	defer os.RemoveAll(work)

	began := time.Now()
	tests, img, err := s.build(ctx, work)
	if err != nil {
		return Summary{}, err
	}
	console := s.ConsoleLog
	if console == "" {
		console = filepath.Join(work, "console.log")
	}
	logrus.Infof("svm: built %d test binaries in %.1f s", len(tests), time.Since(began).Seconds())

	summary, err := s.boot(ctx, img, console, tests)
	if errors.Is(err, ErrMachine) && s.ConsoleLog == "" {
		err = keepConsole(console, err)
	}
	return summary, err
}

// build makes the test binaries and the image that holds them.
func (s *Suite) build(ctx context.Context, work string) ([]testBinary, image, error) {
	var tests []testBinary
	if s.Shell == "" {
		var err error
		if tests, err = buildTests(ctx, work, s.Packages); err != nil {
			return nil, image{}, err
		}
	}
	img, err := buildImage(ctx, work, func(tree *linux.Tree) error {
		for _, t := range tests {
			t.addTo(tree)
		}
		for inside, here := range s.Files {
			info, err := os.Stat(here)
			if err != nil {
				return err
			}
			tree.File(inside, here, uint64(info.Mode().Perm()))
		}
		for _, program := range s.Programs {
			name := path.Base(program)
			out := filepath.Join(work, "program-"+name)
			if err := linux.BuildStatic(ctx, out, program); err != nil {
				return err
			}
			tree.File("bin/"+name, out, 0o755)
		}
		return nil
	})
	return tests, img, err
}

// boot runs everything in one machine.
func (s *Suite) boot(ctx context.Context, img image, console string, tests []testBinary) (summary Summary, err error) {
	began := time.Now()
	m, err := Start(ctx, MachineOptions{
		Kernel: img.kernel, Initramfs: img.initramfs, ConsoleLog: console,
		CPUs: s.CPUs, MemoryBytes: s.MemoryBytes,
	})
	if err != nil {
		return Summary{}, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	logrus.Infof("svm: Linux %s with %d CPUs up in %.1f s", m.Hello.Release, m.Hello.CPUs, time.Since(began).Seconds())
	for _, p := range m.Hello.Problems {
		logrus.Warnf("svm: %s", p)
	}
	// The machine outlives the timeout: a command that is over time is killed
	// in it, so that its last output still arrives.
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("timeout of %v is over", s.Timeout))
	defer cancel()
	if s.Shell != "" {
		return Summary{}, s.runShell(ctx, m)
	}
	return s.runTests(ctx, m, tests)
}

func (s *Suite) runShell(ctx context.Context, m *Machine) error {
	exit, err := m.Run(ctx, channel.Command{
		Argv: []string{"/bin/sh", "-c", s.Shell}, Env: s.environment(), Dir: "/root",
	}, s.Out)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return fmt.Errorf("shell: %s", describe(exit))
	}
	return nil
}

func (s *Suite) runTests(ctx context.Context, m *Machine, tests []testBinary) (Summary, error) {
	report := newReport(s.Out, s.JSON, s.Verbose)
	var failure error
	for _, t := range tests {
		if failure == nil {
			failure = s.runBinary(ctx, m, t, report)
		}
		if failure != nil {
			// Also for those that could not start: a summary never hides them.
			report.broken(t.pkg, failure)
			if !errors.Is(failure, ErrMachine) && ctx.Err() == nil {
				failure = nil
			}
		}
	}
	summary := report.summary()
	switch {
	case failure != nil:
		return summary, failure
	case summary.Failed > 0:
		return summary, ErrTestsFailed
	}
	return summary, nil
}

// runBinary runs one package's tests. Failed tests are no error.
func (s *Suite) runBinary(ctx context.Context, m *Machine, t testBinary, report *report) error {
	convert, err := newConverter(t.pkg, report.event)
	if err != nil {
		return err
	}
	// The test binary's own timeout comes first: it prints all goroutines.
	left := s.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline)-killGrace, time.Second)
	}
	argv := []string{t.inside(), "-test.v=test2json", "-test.timeout=" + left.Round(time.Second).String()}
	report.begin(t.pkg)
	exit, err := m.Run(ctx, channel.Command{
		Argv: append(argv, s.TestFlags...), Env: s.environment(), Dir: t.dirInside(),
	}, convert)
	if err := errors.Join(err, convert.Close()); err != nil {
		return err
	}
	report.end(t.pkg, exit)
	return nil
}

func (s *Suite) environment() []string {
	return append([]string{
		"FINELINE_TIER=svm",
		"FINELINE_BIN=/bin/fineline",
		linux.DirEnv + "=" + guestDir,
		linux.CmdlineEnv + "=" + guestCmdline,
		"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "USER=root",
	}, s.Env...)
}

// describe says how a command ended.
func describe(e channel.Exit) string {
	switch {
	case e.Error != "":
		return e.Error
	case e.Signal != "":
		return "killed by " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// keepConsole moves the console log to where it outlives the run.
func keepConsole(console string, cause error) error {
	f, err := os.CreateTemp("", "fineline-svm-console-*.log")
	if err != nil {
		return errors.Join(cause, err)
	}
	text, err := os.ReadFile(console)
	if err == nil {
		_, err = f.Write(text)
	}
	return errors.Join(fmt.Errorf("%w (kept as %s)", cause, f.Name()), err, f.Close())
}
