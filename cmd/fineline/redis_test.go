package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/images/linux"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// redisWindow is what the test looks at of a line of `fineline-guest track --json`.
type redisWindow struct {
	Window          int      `json:"window"`
	Lines           uint64   `json:"lines"`
	Pages           uint64   `json:"pages"`
	MovedPages      uint64   `json:"moved_pages"`
	CPUMS           float64  `json:"cpu_ms"`
	HarvestMS       float64  `json:"harvest_ms"`
	Amplification4K *float64 `json:"amplification_4k"`
	Amplification2M *float64 `json:"amplification_2m"`
	Amplification64 *float64 `json:"amplification_64"`
}

// TestLinuxTracksRedis boots stock Linux with Debian's redis-server, whose memory fineline-guest tracks by the
// line while keys are set in order and, through the daemon, at random.
func TestLinuxTracksRedis(t *testing.T) {
	image := vmmtest.NeedLinux(t)
	initrd := filepath.Join(image, linux.RedisInitramfsName)
	if _, err := os.Stat(initrd); err != nil {
		t.Skipf("no Linux guest with redis-server (linuximage -redis writes one): %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), linuxHangGuard)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), "run", "--cpus", "2", "--memory", "256M",
		"--kernel", filepath.Join(image, linux.VmlinuxName), "--initrd", initrd,
		"--cmdline", "console=ttyS0 fineline.test=redis fineline.keys=20000 fineline.windows=3 fineline.window=500ms "+os.Getenv(linux.CmdlineEnv))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v; the guest said:\n%s", err, out)
	}
	defer func() {
		if t.Failed() {
			t.Logf("the guest said:\n%s", out)
		}
	}()
	windows, statuses := parseRedis(t, string(out))
	for _, order := range []string{"sequential", "random"} {
		if statuses[order] != "0" {
			t.Errorf("%s: fineline-guest ended with status %q", order, statuses[order])
		}
		if len(windows[order]) != 3 {
			t.Errorf("%s: %d windows, want 3", order, len(windows[order]))
		}
		for _, w := range windows[order] {
			if w.Lines == 0 || w.Amplification4K == nil || *w.Amplification4K < 1 || w.Amplification64 == nil || *w.Amplification64 < 1 ||
				w.Amplification2M == nil || *w.Amplification2M < *w.Amplification4K {
				t.Errorf("%s: %+v: redis-server was under load", order, w)
				continue
			}
			t.Logf("%s: window %d: %d lines in %d pages, amplification %.1f by 4 KiB, %.0f by 2 MiB and %.2f by lines, %d pages moved, harvest %.1f ms, CPU %.1f ms",
				order, w.Window, w.Lines, w.Pages, *w.Amplification4K, *w.Amplification2M, *w.Amplification64, w.MovedPages, w.HarvestMS, w.CPUMS)
		}
	}
	// A user tracks the own process through the daemon, and no other.
	own := "page 0: lines 0000000000000021, 2 bytes changed, exact true\npage 2: lines 8000000000000000, 1 bytes changed, exact true\n"
	if statuses["own"] != "0" || !strings.Contains(string(out), own) {
		t.Errorf("the example: status %q", statuses["own"])
	}
	if statuses["foreign"] != "1" || !strings.Contains(string(out), "only root may track process") {
		t.Errorf("a user tracks redis-server: status %q", statuses["foreign"])
	}
}

// parseRedis reads what /init of the guest prints (package linux).
func parseRedis(t *testing.T, out string) (windows map[string][]redisWindow, statuses map[string]string) {
	t.Helper()
	windows, statuses = map[string][]redisWindow{}, map[string]string{}
	order := ""
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		if o, ok := strings.CutPrefix(line, "track order="); ok {
			order = o
		} else if s, ok := strings.CutPrefix(line, "track status="); ok {
			statuses[order] = s
		} else if strings.HasPrefix(line, `{"window"`) {
			var w redisWindow
			if err := json.Unmarshal([]byte(line), &w); err != nil {
				t.Errorf("%v: %q", err, line)
			}
			windows[order] = append(windows[order], w)
		}
	}
	return windows, statuses
}
