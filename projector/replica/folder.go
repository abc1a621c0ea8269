package replica

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tokenledger/tokenledger/projector"
)

// The folders of an index, if its name is index:
//
//	index          the index
//	index.next-1   one that is built beside it, or has taken its place
//	index.aside-…  quarantined: the last one that was damaged or replaced
//
// Badger opens files by name, so a folder cannot be renamed while it is open. The
// next start renames the oldest one.

// Exists reports whether there is an index at dir that something was applied to.
func Exists(dir string) bool {
	folders, _, err := foldersOf(dir)
	return err != nil || slices.ContainsFunc(folders, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "MANIFEST"))
		return err == nil
	})
}

// nextMark stands between the index's name and the number of one beside it.
const nextMark = ".next-"

// foldersOf returns the existing folders of an index, oldest first, and the
// leftovers of a process that was killed.
func foldersOf(dir string) (folders, leftovers []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	numbers := map[string]int{}
	for _, e := range entries {
		path := filepath.Join(filepath.Dir(dir), e.Name())
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(dir))
		if !ok {
			continue
		}
		if rest == "" {
			folders = append(folders, path)
			continue
		}
		if strings.HasPrefix(rest, nextMark) || strings.HasPrefix(rest, ".partial") {
			n, err := strconv.Atoi(strings.TrimPrefix(rest, nextMark))
			if err != nil {
				leftovers = append(leftovers, path)
				continue
			}
			numbers[path] = n
			folders = append(folders, path)
		}
	}
	slices.SortFunc(folders, func(a, b string) int { return numbers[a] - numbers[b] })
	return folders, leftovers, nil
}

// recoverDir gives the oldest index the name dir, and removes the others, which
// were not finished. No index may be open. It returns dir.
func recoverDir(dir string) (string, error) {
	folders, leftovers, err := foldersOf(dir)
	if err != nil {
		return "", err
	}
	if len(folders) > 0 {
		leftovers = append(leftovers, folders[1:]...)
	}
	for _, l := range leftovers {
		if err := os.RemoveAll(l); err != nil {
			return "", err
		}
	}
	if len(folders) > 0 && folders[0] != dir {
		return dir, projector.Move(folders[0], dir)
	}
	return dir, nil
}

// nextFolder returns the name of a new folder beside an index.
func nextFolder(dir string) (string, error) {
	folders, _, err := foldersOf(dir)
	if err != nil {
		return "", err
	}
	n := 1
	if len(folders) > 0 {
		if _, number, ok := strings.Cut(filepath.Base(folders[len(folders)-1]), nextMark); ok {
			last, err := strconv.Atoi(number)
			if err != nil {
				return "", err
			}
			n = last + 1
		}
	}
	return dir + nextMark + strconv.Itoa(n), nil
}

// folderSize returns how many bytes a folder's files take on the disk. Badger's
// files can be sparse, so their lengths say too much.
func folderSize(dir string) (size uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Badger removed it meanwhile
		}
		if err != nil || e.IsDir() {
			return err
		}
		var st syscall.Stat_t
		err = syscall.Stat(path, &st)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		size += uint64(st.Blocks) * 512
		return err
	})
	return size, err
}
