package partitioner_test

import (
	"bufio"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
)

// vectors are what a real client answered: per key, one partition for each count.
type vectors struct {
	counts []int32
	want   [][]int32 // by key, then by count
}

func readKeys(t *testing.T) [][]byte {
	t.Helper()
	var keys [][]byte
	for _, line := range readLines(t, "keys.txt") {
		key, err := hex.DecodeString(line)
		if err != nil {
			t.Fatalf("keys.txt: %v", err)
		}
		keys = append(keys, key)
	}
	return keys
}

// readLines leaves out comments; an empty line is the empty key.
func readLines(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if line := sc.Text(); !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func readVectors(t *testing.T, name string) vectors {
	t.Helper()
	numbers := func(line string) []int32 {
		var out []int32
		for field := range strings.SplitSeq(line, "\t") {
			n, err := strconv.ParseInt(field, 10, 32)
			if err != nil {
				t.Fatalf("%s: line %q: %v", name, line, err)
			}
			out = append(out, int32(n))
		}
		return out
	}
	lines := readLines(t, name)
	v := vectors{counts: numbers(lines[0])}
	for _, line := range lines[1:] {
		v.want = append(v.want, numbers(line))
	}
	return v
}

func TestAgreesWithTheRealClients(t *testing.T) {
	keys := readKeys(t)
	if len(keys) < 3000 {
		t.Fatalf("only %d keys", len(keys))
	}
	for _, tt := range []struct{ name, file string }{
		{partitioner.Murmur2, "murmur2-java.tsv"},
		{partitioner.Murmur2, "murmur2-librdkafka.tsv"},
		{partitioner.CRC32, "crc32-librdkafka.tsv"},
		{partitioner.FNV1a, "fnv1a-sarama.tsv"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			p, err := partitioner.New(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			v := readVectors(t, tt.file)
			if len(v.want) != len(keys) {
				t.Fatalf("%d lines for %d keys", len(v.want), len(keys))
			}
			wrong := 0
			for i, key := range keys {
				for j, n := range v.counts {
					if got := p.Partition(key, n); got != v.want[i][j] {
						wrong++
						if wrong <= 5 {
							t.Errorf("key %x of %d partitions: got %d, want %d", key, n, got, v.want[i][j])
						}
					}
				}
			}
			if wrong > 5 {
				t.Errorf("%d wrong of %d", wrong, len(keys)*len(v.counts))
			}
		})
	}
}

func TestKnownExample(t *testing.T) {
	for name, want := range map[string]int32{partitioner.Murmur2: 16, partitioner.CRC32: 19, partitioner.FNV1a: 26} {
		p, err := partitioner.New(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Partition([]byte("foobar"), 50); got != want || p.Name() != name {
			t.Errorf("%s: foobar of 50 = %d, want %d", p.Name(), got, want)
		}
	}
}

func TestNewKnowsItsNamesOnly(t *testing.T) {
	for _, name := range partitioner.Names() {
		if p, err := partitioner.New(name); err != nil || p.Name() != name {
			t.Errorf("%q: %v, %v", name, p, err)
		}
	}
	if p, err := partitioner.New(""); err != nil || p.Name() != partitioner.Default {
		t.Errorf("empty name: %v, %v", p, err)
	}
	if _, err := partitioner.New("md5"); err == nil || !strings.Contains(err.Error(), "murmur2, crc32, fnv1a") {
		t.Errorf("unknown name: %v", err)
	}
}

func TestNoPartitionsGivesNone(t *testing.T) {
	for _, name := range partitioner.Names() {
		p, _ := partitioner.New(name)
		for _, n := range []int32{0, -1} {
			if got := p.Partition([]byte("k"), n); got != -1 {
				t.Errorf("%s of %d partitions = %d, want -1", name, n, got)
			}
		}
	}
}

func FuzzPartitionIsInRange(f *testing.F) {
	f.Add([]byte("foobar"), int32(50))
	f.Add([]byte(nil), int32(1))
	f.Fuzz(func(t *testing.T, key []byte, n int32) {
		for _, name := range partitioner.Names() {
			p, _ := partitioner.New(name)
			got := p.Partition(key, n)
			if n >= 1 && (got < 0 || got >= n) || n < 1 && got != -1 {
				t.Errorf("%s: key %x of %d partitions = %d", name, key, n, got)
			}
		}
	})
}

func TestPartitionAllocatesNothing(t *testing.T) {
	key := []byte("a key of a usual length")
	for _, name := range partitioner.Names() {
		p, _ := partitioner.New(name)
		if n := testing.AllocsPerRun(100, func() { p.Partition(key, 64) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPartition(b *testing.B) {
	key := []byte("customer-00004711")
	for _, name := range partitioner.Names() {
		p, _ := partitioner.New(name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Partition(key, 64)
			}
		})
	}
}
