package options

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as 65536, 64KiB, 256MiB, 1.5GiB or, in powers of ten, 64KB, 256MB, 1GB.
type Size int64

// sizeUnits is a constant table, the suffixes that end in another one before that one.
var sizeUnits = [...]struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	number, unit := in, int64(1)
	for _, u := range sizeUnits {
		if len(in) > len(u.suffix) && strings.EqualFold(in[len(in)-len(u.suffix):], u.suffix) {
			number, unit = strings.TrimSpace(in[:len(in)-len(u.suffix)]), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		hi, lo := bits.Mul64(uint64(max(n, 0)), uint64(unit))
		if n < 0 || hi != 0 || lo > math.MaxInt64 {
			return fmt.Errorf("size %q is out of range", in)
		}
		*s = Size(lo)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) {
		return fmt.Errorf("%q is not a size such as 65536, 64KiB or 256MB", in)
	}
	if f *= float64(unit); f < 0 || f >= math.MaxInt64 {
		return fmt.Errorf("size %q is out of range", in)
	}
	*s = Size(f)
	return nil
}

// String spells a size with the largest binary unit that divides it.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// SecretFile is the path of a file that holds a secret. A secret is never a flag's value itself: those are
// shown by every process listing.
type SecretFile string

// Read gives the file's content without the newline that editors put at its end. A path that is not set gives
// "" and no error; a file that holds nothing is an error, for it protects nothing.
func (f SecretFile) Read() (string, error) {
	if f == "" {
		return "", nil
	}
	text, err := os.ReadFile(string(f))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("read secret %s: %w", string(f), errEmptySecret)
	}
	return secret, nil
}

var errEmptySecret = errors.New("the file is empty")
