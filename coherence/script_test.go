package coherence

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the scripts of testdata print as what they should")

// TestScripts runs testdata/*.txt. A script is blocks, separated by empty
// lines: commands, a line ----, what they print. Lines that begin with # are
// comments. A command prints the messages it sent (>; those that settle lets
// arrive <), then the effects, then the error if there is one.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s: got (-update accepts it)\n%s", file, got)
			}
		})
	}
}

// runScript returns the script with each block's output as it is now.
func runScript(text string) string {
	var in interpreter
	var blocks []string
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		ran := false
		in.out.Reset()
		for line := range strings.SplitSeq(commands, "\n") {
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			ran = true
			if err := in.do(line); err != nil {
				in.out.WriteString("error: " + err.Error() + "\n")
			}
			if in.system != nil {
				in.system.effects = nil
			}
		}
		if ran {
			commands += "\n----\n" + in.out.String()
		}
		blocks = append(blocks, strings.TrimRight(commands, "\n"))
	}
	return strings.Join(blocks, "\n\n") + "\n"
}
