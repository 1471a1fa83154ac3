package buildinfo

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionIsTheStampElseTheModuleElseTheRevision(t *testing.T) {
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.time", Value: "2026-11-23T02:00:00Z"}, {Key: "vcs.modified", Value: modified},
		}
	}
	for _, tt := range []struct {
		name, stamped, module string
		settings              []debug.BuildSetting
		want, line            string
	}{
		{"stamped", "v1.2.3", "(devel)", vcs("false"), "v1.2.3", "v1.2.3 (0123456789ab) of 2026-11-23T02:00:00Z, go"},
		{"stamp names the revision", "v1.2.3-4-g0123456", "(devel)", vcs("false"), "v1.2.3-4-g0123456", "v1.2.3-4-g0123456 of 2026-"},
		{"installed module", "", "v1.2.3", nil, "v1.2.3", "v1.2.3, go"},
		{"work tree", "", "(devel)", vcs("false"), "devel-0123456789ab", "devel-0123456789ab of 2026-"},
		{"changed work tree", "", "(devel)", vcs("true"), "devel-0123456789ab-dirty", "devel-0123456789ab-dirty of"},
		{"nothing known", "", "", nil, "devel", "devel, go"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := describe(tt.stamped, &debug.BuildInfo{Main: debug.Module{Version: tt.module}, Settings: tt.settings})
			if got.Version != tt.want {
				t.Errorf("version = %q, want %q", got.Version, tt.want)
			}
			if !strings.HasPrefix(got.String(), tt.line) {
				t.Errorf("line = %q, want it to begin with %q", got, tt.line)
			}
		})
	}
}

func TestReadDescribesThisProgram(t *testing.T) {
	info := Read()
	if info.Version == "" || !strings.HasPrefix(info.Go, "go") || !strings.Contains(info.Platform, "/") {
		t.Errorf("got %+v", info)
	}
}
