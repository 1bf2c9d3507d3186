#include "engine/choice_cache.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/scratch_folder.hpp"

namespace cinnabar::testing {
namespace {

const std::vector<std::string> kAllowed{"gemm", "fft"};

/// Asks for a key and counts how often that took a measurement, which finds `answer`.
struct Asked {
  explicit Asked(std::string found) : answer(std::move(found)) {}
  std::string operator()(ChoiceCache& cache, const std::string& key = "conv3d 4x5") {
    return cache.choose(key, kAllowed, [this] {
      ++measured;
      return answer;
    });
  }
  std::string answer;
  std::atomic<int> measured{0};
};

TEST(ChoiceCache, MeasuresOnceAndOtherProcessesNever) {
  const ScratchFolder folder;
  const auto file = folder / "new/sub/choices.txt";
  ChoiceCache first(file);
  Asked asked("fft");
  EXPECT_EQ(asked(first), "fft");
  EXPECT_EQ(asked(first), "fft");
  EXPECT_EQ(asked.measured, 1);
  EXPECT_EQ(read_bytes(file), "cinnabar choices 1\nfft conv3d 4x5\n");
  ChoiceCache second(file);
  Asked never("gemm");
  EXPECT_EQ(never(second), "fft");
  EXPECT_EQ(never.measured, 0);
  EXPECT_EQ(never(second, "another key"), "gemm");
  EXPECT_EQ(never.measured, 1);
}

TEST(ChoiceCache, KeepsWhatOthersWroteMeanwhile) {
  const ScratchFolder folder;
  ChoiceCache first(folder / "choices.txt"), second(folder / "choices.txt");
  Asked fft("fft"), gemm("gemm");
  fft(first, "a");  // both have read the file when neither had written it
  gemm(second, "b");
  gemm(second, "a");
  EXPECT_EQ(fft(first, "b"), "gemm") << "the first to write decides, so that all compute the same bits";
  EXPECT_EQ(read_bytes(folder / "choices.txt"), "cinnabar choices 1\nfft a\ngemm b\n");
}

TEST(ChoiceCache, PassesOverDamagedFiles) {
  const ScratchFolder folder;
  const auto file = folder / "choices.txt";
  for (const std::string& content : {std::string(), std::string("\0\xff\x80 nonsense", 12),
                                     std::string("cinnabar choices 2\nfft conv3d 4x5\n"),
                                     std::string("cinnabar choices 1\n\n \nfft\nfft \nother conv3d 4x5\n"),
                                     std::string("cinnabar choices 1\nfft conv3d 4x5")}) {  // cut off
    write_bytes(file, content);
    ChoiceCache cache(file);
    Asked asked("gemm");
    EXPECT_EQ(asked(cache), "gemm") << content;
    EXPECT_EQ(asked.measured, 1) << content;
    ChoiceCache mended(file);
    EXPECT_EQ(asked(mended), "gemm") << content;
    EXPECT_EQ(asked.measured, 1) << content;
  }
}

TEST(ChoiceCache, WorksWithoutAFile) {
  const ScratchFolder folder;
  write_bytes(folder / "plain", "");
  std::filesystem::create_directories(folder / "locked");
  std::filesystem::permissions(folder / "locked", std::filesystem::perms::owner_read);
  std::filesystem::create_directories(folder / "choices.txt");
  for (const std::filesystem::path& file : {std::filesystem::path(), folder / "plain/choices.txt",
                                            folder / "locked/choices.txt", folder / "choices.txt"}) {
    ChoiceCache cache(file);
    Asked asked("fft");
    EXPECT_EQ(asked(cache), "fft") << file;
    EXPECT_EQ(asked(cache), "fft") << file;
    EXPECT_EQ(asked.measured, 1) << file;
  }
  std::filesystem::permissions(folder / "locked", std::filesystem::perms::owner_all);
}

TEST(ChoiceCache, ThreadsMeasureAKeyOnce) {
  const ScratchFolder folder;
  ChoiceCache cache(folder / "choices.txt");
  Asked asked("fft");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20; ++k) EXPECT_EQ(asked(cache, "key " + std::to_string(k)), "fft");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(asked.measured, 20);
}

TEST(ChoiceCache, ProcessesLoseNothing) {
  const ScratchFolder folder;
  const auto file = folder / "choices.txt";
  constexpr int kProcesses = 4, kKeys = 10;
  for (int p = 0; p < kProcesses; ++p) {
    if (::fork() != 0) continue;
    ChoiceCache cache(file);
    Asked asked(p % 2 == 0 ? "fft" : "gemm");
    for (int k = 0; k < kKeys; ++k) asked(cache, std::to_string(p) + " " + std::to_string(k));
    ::_exit(0);
  }
  for (int p = 0; p < kProcesses; ++p) ::wait(nullptr);
  ChoiceCache cache(file);
  Asked asked("none");
  for (int p = 0; p < kProcesses; ++p) {
    for (int k = 0; k < kKeys; ++k) asked(cache, std::to_string(p) + " " + std::to_string(k));
  }
  EXPECT_EQ(asked.measured, 0);
}

}  // namespace
}  // namespace cinnabar::testing
