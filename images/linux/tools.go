package linux

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// tool is one host program that builds or tests need.
type tool struct {
	program string // looked up in PATH
	pkg     string // the Debian package that has it
	usable  func(path string) error
}

// tools is the only list of host programs that the tests need besides Go.
var tools = []tool{
	{program: "qemu-system-x86_64", pkg: "qemu-system-x86"},
	{program: "busybox", pkg: "busybox-static", usable: staticELF},
	{program: "gcc", pkg: "gcc"},
	{program: "ld", pkg: "binutils"},
	{program: "make", pkg: "make"},
	{program: "iasl", pkg: "acpica-tools"},
	{program: "xz", pkg: "xz-utils"},
	{program: "zstd", pkg: "zstd"},
	{program: "dpkg-deb", pkg: "dpkg"},
}

// EnsureTools makes every host program of the test tiers present. Missing
// Debian packages are installed by apt-get when the caller is root; otherwise
// the error is the command to run.
func EnsureTools(ctx context.Context) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	names := strings.Join(missing, " ")
	if !canInstall() {
		return fmt.Errorf("missing Debian packages: run `apt-get install %s` as root", names)
	}
	logrus.Infof("installing Debian packages: %s", names)
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	if err := runQuiet(ctx, "apt-get", install...); err != nil {
		// The package lists may be absent (containers) or too old.
		if err := runQuiet(ctx, "apt-get", "update"); err != nil {
			return fmt.Errorf("refresh the package lists: %w", err)
		}
		if err := runQuiet(ctx, "apt-get", install...); err != nil {
			return fmt.Errorf("install %s: %w", names, err)
		}
	}
	if still := missingPackages(); len(still) > 0 {
		return fmt.Errorf("packages installed but programs still unusable: %s", strings.Join(still, " "))
	}
	return nil
}

// missingPackages returns the packages of tools that are absent or unusable.
func missingPackages() []string {
	var missing []string
	for _, t := range tools {
		path, err := exec.LookPath(t.program)
		if err == nil && t.usable != nil {
			err = t.usable(path)
		}
		if err != nil && !slices.Contains(missing, t.pkg) {
			missing = append(missing, t.pkg)
		}
	}
	return missing
}

// canInstall says whether apt-get may change this host.
func canInstall() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil && os.Geteuid() == 0
}

var errDynamic = errors.New("dynamically linked")

// staticELF refuses programs that need an interpreter: an initramfs has none.
func staticELF(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s: %w", path, errDynamic)
		}
	}
	return nil
}

// output runs a program and returns its stdout; the error holds its stderr.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	return outputOf(cmd)
}

func outputOf(cmd *exec.Cmd) ([]byte, error) {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	// Messages are parsed and nobody can answer questions.
	cmd.Env = append(cmd.Env, "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lastLine(stderr.String()))
	}
	return out, nil
}

// runQuiet is output for programs whose stdout does not matter.
func runQuiet(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
