package testreport

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, events string
		want         Summary
		printed      []string
	}{
		{
			"a pass, a skip and a subtest",
			`{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: no KVM here\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.5}
`,
			Summary{Passed: 2, Skipped: 1},
			[]string{"SKIP  p TestB: b_test.go:7: no KVM here\n", "ok    p  1.5 s\n"},
		},
		{
			"a failure in packages that run at once",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"p broke\n"}
{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
{"Action":"pass","Package":"q"}
`,
			Summary{Passed: 1, Failed: 1},
			[]string{"FAIL  p TestA\n      p broke\n", "ok    q"},
		},
		{
			"a panic counts once and shows the test it cut",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\n"}
{"Action":"fail","Package":"p"}
`,
			Summary{Failed: 1},
			[]string{"FAIL  p\n", "FAIL  p TestA did not end\n      panic: oh\n"},
		},
		{
			"a build failure",
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/x.go:1: no\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`,
			Summary{Failed: 1},
			[]string{"p/x.go:1: no\n", "FAIL  p\n"},
		},
		{"words between, no newline at the end", "hello\n{\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"T\"}", Summary{Passed: 1}, []string{"hello\n"}},
		{"a skip without a reason", `{"Action":"skip","Package":"p","Test":"T"}`, Summary{Skipped: 1}, []string{"no reason given"}},
		{"a package without tests", `{"Action":"skip","Package":"p"}`, Summary{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := New("tier", &out)
			if err := r.Read(strings.NewReader(c.events)); err != nil {
				t.Fatal(err)
			}
			if got := r.Result().Summary; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got := r.Result(); len(got.Failures) != got.Summary.Failed {
				t.Errorf("%d names for %d failures", len(got.Failures), got.Summary.Failed)
			}
			for _, want := range c.printed {
				if !strings.Contains(out.String(), want) {
					t.Errorf("printed %q, want %q in it", out.String(), want)
				}
			}
		})
	}
}

func TestTotal(t *testing.T) {
	dir := t.TempDir()
	unit, svm, lost, broken := filepath.Join(dir, "unit"), filepath.Join(dir, "svm"), filepath.Join(dir, "lost"), filepath.Join(dir, "broken")
	for file, r := range map[string]Result{
		unit: {Tier: "unit", Summary: Summary{Passed: 5, Skipped: 1}},
		svm:  {Tier: "svm", Summary: Summary{Passed: 2, Failed: 1}, Failures: []string{"p TestA"}},
	} {
		if err := Write(file, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if got, want := Total(&out, []string{unit, svm}), (Summary{7, 1, 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := "unit:        5 passed, 0 failed, 1 skipped\nsvm:         2 passed, 1 failed, 0 skipped\n" +
		"FAIL  svm: p TestA\n7 passed, 1 failed, 1 skipped\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	if got := Total(&out, []string{unit, lost, broken}); got.Failed != 2 {
		t.Errorf("tiers that did not run: %v\n%s", got, out.String())
	}
}

func TestReason(t *testing.T) {
	for output, want := range map[string]string{
		"":                                   "no reason given",
		"=== RUN   A\n--- SKIP: A (0.00s)\n": "no reason given",
		"=== RUN   A\n    a_test.go:3: needs KVM\n--- SKIP: A (0.00s)\n": "a_test.go:3: needs KVM",
	} {
		if got := Reason(output); got != want {
			t.Errorf("%q: %q, want %q", output, got, want)
		}
	}
}
