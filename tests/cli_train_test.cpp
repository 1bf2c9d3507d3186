// cinnabar train quicksilver on tiny momenta: what it writes, and that faults lose nothing.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "autograd/gaussian_smooth.hpp"
#include "models/quicksilver_file.hpp"
#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::registration {
namespace {

namespace fs = std::filesystem;
using cinnabar::testing::CommandResult;
using cinnabar::testing::kProgram;
using cinnabar::testing::random_tensor;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::write_bytes;

class Train : public ::testing::Test {
 protected:
  /// Four pairs of two subjects each, of 8 patches a pair.
  void SetUp() override {
    const MomentumModel model{{0.2, 0.2, 0.001, 1}, 0.12, 4, 10, 2.0, 1000.0};
    const nlohmann::json settings{{"format", 1}, {"model", to_json(model)}};
    fs::create_directory(folder_ / "momenta");
    write_bytes(folder_ / "momenta" / "momenta.json", settings.dump());
    std::string list = "moving,fixed,split\n";
    for (std::uint64_t i = 0; i < 4; ++i) {
      const std::string moving = detail::concat("m", i, ".nii"), fixed = detail::concat("f", i, ".nii");
      write_bytes(folder_ / moving, "");
      write_bytes(folder_ / fixed, "");
      list += detail::concat(moving, ",", fixed, i == 3 ? ",validation\n" : ",\n");
      finish(i, moving, fixed);
    }
    write_bytes(folder_ / "pairs.csv", list);
  }

  void finish(std::uint64_t i, const std::string& moving, const std::string& fixed) {
    const std::string name = name_of(i);
    const Tensor image = random_tensor({1, 1, 16, 16, 16}, 3 * i, 0.1, 1.0);
    save_safetensors(folder_ / "momenta" / (name + ".safetensors"),
                     {{{"moving", image},
                       {"target", random_tensor({1, 1, 16, 16, 16}, 3 * i + 1, 0.1, 1.0)},
                       {"momentum", random_tensor({1, 3, 16, 16, 16}, 3 * i + 2, -0.1, 0.1)}},
                      {}});
    const nlohmann::json record{{"name", name}, {"moving", moving}, {"fixed", fixed}, {"augmentation", 0}};
    write_bytes(folder_ / "momenta" / (name + ".json"), record.dump());
  }
  static std::string name_of(std::uint64_t i) { return detail::concat("m", i, "_to_f", i); }

  /// In a folder of its own, so that commands are the same and outputs are not.
  std::string command(const std::string& where, const std::string& options = {},
                      const std::string& runner = {}) const {
    fs::create_directories(folder_ / where);
    return detail::concat(
        "cd ", shell_quote((folder_ / where).string()), " && exec ", runner, shell_quote(kProgram),
        " train quicksilver --momenta ../momenta --out net.safetensors --features 1 --batch 4 "
        "--device cpu --threads 1 ",
        options);
  }
  CommandResult train(const std::string& where, const std::string& options = {}) const {
    return run_shell(detail::concat("(", command(where, options), ") 2>&1"));
  }
  std::string made(const std::string& where, const std::string& name) const {
    return read_bytes(folder_ / where / name);
  }
  /// One line on stderr, exit code 1.
  void expect_refused(const std::string& where, const std::string& options, const std::string& reason) const {
    const CommandResult result = run_shell(detail::concat("(", command(where, options), ") 2>&1 >/dev/null"));
    EXPECT_EQ(result.status, 1) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output << " should say: " << reason;
    EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
  }

  ScratchFolder folder_;
};

TEST_F(Train, WritesNetworkAndCurve) {
  const CommandResult result = train("a", "--pairs ../pairs.csv --epochs 1 --storage f16 --dropout 0.2");
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("3 to train on, 1 to validate with"), std::string::npos) << result.output;
  const LoadedQuicksilver loaded = load_quicksilver(folder_ / "a" / "net.safetensors");
  EXPECT_EQ(loaded.description.role, QuicksilverRole::prediction);
  EXPECT_EQ(loaded.description.network.dropout, 0.2);
  EXPECT_EQ(loaded.description.momenta.head_voxels, 1000.0);
  EXPECT_EQ(loaded.description.notes.at("training pairs"), "3");
  EXPECT_EQ(loaded.description.notes.at("steps"), "6");
  EXPECT_GT(std::stod(loaded.description.notes.at("validation ratio")), 0.5);
  const std::string table = made("a", "net_loss.csv");
  EXPECT_TRUE(table.starts_with("step,epoch,")) << table;
  EXPECT_NE(table.find("\n6,1,"), std::string::npos) << table;
  EXPECT_TRUE(made("a", "net_loss.svg").starts_with("<svg"));
}

TEST_F(Train, KilledAndInterruptedItEndsWithTheSameBytes) {
  const std::string options =
      "--validation 0.25 --epochs 12 --checkpoint-minutes 0 --dropout 0.1 --mirror --places anywhere "
      "--intensity 0.2 --moving-average 0.9 --schedule cosine --learning-rate 1e-3";
  ASSERT_EQ(train("whole", options).status, 0);
  // Stopped once it has written so many checkpoints, first by a kill, then by Ctrl-C. It runs at the lowest
  // priority, so that a busy machine holds it back and not the loop that watches it.
  const auto stop_with = [&](const std::string& signal, int checkpoints) {
    const std::string folder = shell_quote((folder_ / "parts").string());
    return run_shell(
        detail::concat("(", command("parts", options, "nice -n 19 "), ") >/dev/null 2>", folder,
                       "/said & child=$!; cd ", folder, "; seen=0; last=; while [ $seen -lt ", checkpoints,
                       " ]; do now=$(stat -c %i%y%z net.checkpoint.safetensors 2>/dev/null); "
                       "[ \"$now\" != \"$last\" ] && seen=$((seen+1)) && last=$now; sleep 0.01; done; kill -",
                       signal, " $child; wait $child"));
  };
  EXPECT_EQ(stop_with("KILL", 2).status, 128 + 9);
  EXPECT_EQ(stop_with("INT", 2).status, 130);
  EXPECT_NE(made("parts", "said").find("the same command goes on"), std::string::npos)
      << made("parts", "said");
  const CommandResult rest = train("parts", options);
  ASSERT_EQ(rest.status, 0) << rest.output;
  EXPECT_NE(rest.output.find("goes on     after batch"), std::string::npos) << rest.output;
  for (const char* name : {"net.safetensors", "net_loss.csv", "net_loss.svg", "net.checkpoint.safetensors"}) {
    EXPECT_TRUE(made("parts", name) == made("whole", name)) << name;
  }
  for (const auto& entry : fs::directory_iterator(folder_ / "parts")) {
    const std::string kind = entry.path().extension();
    EXPECT_TRUE(kind != ".tmp" && kind != ".partial") << entry.path();
  }
}

TEST_F(Train, ByTheEnergyItNeedsNoMomenta) {
  const std::string options =
      "--loss energy --pairs ../pairs.csv --patch 16 --swap --mirror --validation-steps 2 ";
  const CommandResult whole = train("whole", options + "--epochs 4");
  ASSERT_EQ(whole.status, 0) << whole.output;
  EXPECT_NE(whole.output.find("pairs       3 an epoch, 3 batches in all"), std::string::npos) << whole.output;
  ASSERT_EQ(train("parts", options + "--epochs 2").status, 0);
  ASSERT_EQ(train("parts", options + "--epochs 4").status, 0);
  EXPECT_TRUE(made("whole", "net.safetensors") == made("parts", "net.safetensors"));
  const CommandResult correction =
      train("correction", options + "--epochs 1 --correction --network ../whole/net.safetensors");
  ASSERT_EQ(correction.status, 0) << correction.output;
  EXPECT_EQ(load_quicksilver(folder_ / "correction" / "net.safetensors").description.role,
            QuicksilverRole::correction);
  EXPECT_FALSE(fs::exists(folder_ / "momenta" / "correction"));
  expect_refused("bad", options + "--velocity-loss 0.1", "exclude each other");
  expect_refused("bad", options + "--smooth-momenta 1", "are for --loss momentum");
  expect_refused("bad", "--swap", "are for --loss energy");
}

TEST_F(Train, ComputesInTheNamedPrecision) {
  const std::string options = "--validation 0 --learning-rate 1e-3 ";
  std::map<std::string, std::string> networks;
  for (const char* precision : {"fp32", "tf32", "fp16", "bf16"}) {
    const std::string named = options + "--precision " + precision;
    ASSERT_EQ(train("whole", named + " --epochs 2 --restart").status, 0);
    const CommandResult half = train("parts", named + " --epochs 1 --restart");
    ASSERT_EQ(half.status, 0) << half.output;
    EXPECT_NE(half.output.find(detail::concat("parameters, ", precision)), std::string::npos) << half.output;
    const CommandResult rest = train("parts", named + " --epochs 2");
    ASSERT_EQ(rest.status, 0) << rest.output;
    EXPECT_NE(rest.output.find("goes on"), std::string::npos) << rest.output;
    const fs::path network = folder_ / "parts" / "net.safetensors";
    EXPECT_EQ(load_quicksilver(network).description.notes.at("precision"), precision);
    const Tensor weight = load_safetensors(network).tensors.at("decoder_z_2.conv_output.weight");
    EXPECT_EQ(weight.to_vector<float>(), load_safetensors(folder_ / "whole" / "net.safetensors")
                                             .tensors.at("decoder_z_2.conv_output.weight")
                                             .to_vector<float>())
        << precision;
    networks[precision] = detail::concat(weight.to_vector<float>()[0], ' ', weight.to_vector<float>()[1]);
  }
  EXPECT_NE(networks["bf16"], networks["fp32"]);
  EXPECT_NE(networks["fp16"], networks["fp32"]);
  expect_refused("parts", options + "--epochs 3", "--precision is not given but was bf16");
  ASSERT_EQ(train("parts", options + "--epochs 1 --restart").status, 0);
  expect_refused("parts", options + "--epochs 1 --precision fp16", "--precision is fp16 but was not given");
}

TEST_F(Train, ALimitOfTimeStopsWithACheckpoint) {
  const CommandResult result = train("a", "--validation 0 --epochs 1000 --max-minutes 0.01");
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("stopped after --max-minutes"), std::string::npos) << result.output;
  EXPECT_FALSE(fs::exists(folder_ / "a" / "net.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "a" / "net.checkpoint.safetensors"));
}

TEST_F(Train, MissingMomentaAreCountedOrLeftOut) {
  fs::remove(folder_ / "momenta" / (name_of(1) + ".json"));
  expect_refused("a", "--pairs ../pairs.csv", "1 of 4 pairs");
  expect_refused("a", "--pairs ../pairs.csv", "--skip-missing");
  const CommandResult result = train("a", "--pairs ../pairs.csv --skip-missing --epochs 0.5");
  EXPECT_NE(result.output.find("2 to train on, 1 to validate with"), std::string::npos) << result.output;
  fs::remove(folder_ / "momenta" / "momenta.json");
  expect_refused("a", "--restart", "momenta.json: not found");
}

TEST_F(Train, ACheckpointIsNeverMisused) {
  ASSERT_EQ(train("a", "--validation 0 --epochs 0.5").status, 0);
  const fs::path checkpoint = folder_ / "a" / "net.checkpoint.safetensors";
  expect_refused("a", "--validation 0 --epochs 0.5 --learning-rate 0.5",
                 "--learning-rate is 0.5 but was 0.0001");
  expect_refused("a", "--validation 0 --epochs 0.5 --mirror", "--mirror is on but was off");
  EXPECT_EQ(train("a", "--validation 0 --epochs 1").status, 0);
  EXPECT_EQ(load_quicksilver(folder_ / "a" / "net.safetensors").description.notes.at("epochs"), "1");
  const std::string whole = read_bytes(checkpoint);
  write_bytes(checkpoint, whole.substr(0, whole.size() / 2));
  expect_refused("a", "--validation 0 --epochs 1", "net.checkpoint.safetensors");
  write_bytes(checkpoint, made("a", "net.safetensors"));
  expect_refused("a", "--validation 0 --epochs 1", "--restart begins anew");
  EXPECT_EQ(train("a", "--validation 0 --epochs 0.5 --restart").status, 0);
  // Momenta that were finished since do not disturb a training that goes on; those that are gone do.
  finish(7, "m7.nii", "f7.nii");
  EXPECT_EQ(train("a", "--validation 0 --epochs 1").status, 0);
  for (std::uint64_t i = 0; i < 4; ++i) fs::remove(folder_ / "momenta" / (name_of(i) + ".json"));
  expect_refused("a", "--validation 0 --epochs 1", "of the checkpoint is no longer");
}

TEST_F(Train, SmoothedMomentaAreThoseOfSmoothedFiles) {
  ASSERT_EQ(train("a", "--validation 0 --epochs 1 --smooth-momenta 1.5").status, 0);
  expect_refused("a", "--validation 0 --epochs 1", "--smooth-momenta is 0 but was 1.5");
  for (const auto& entry : fs::directory_iterator(folder_ / "momenta")) {
    if (entry.path().extension() != ".safetensors") continue;
    SafeTensors volumes = load_safetensors(entry.path());
    Tensor& momentum = volumes.tensors.at("momentum");
    momentum = gaussian_smooth(momentum, {1.5, 1.5, 1.5});
    save_safetensors(entry.path(), volumes);
  }
  ASSERT_EQ(train("b", "--validation 0 --epochs 1").status, 0);
  const auto weights = [&](const char* run) {
    return load_safetensors(folder_ / run / "net.safetensors").tensors.at("encoder_m_1.conv_input.weight");
  };
  EXPECT_EQ(weights("a").to_vector<float>(), weights("b").to_vector<float>());
}

TEST_F(Train, AListThatChangedIsNotPassedOver) {
  ASSERT_EQ(train("a", "--pairs ../pairs.csv --epochs 0.5").status, 0);
  std::string list = read_bytes(folder_ / "pairs.csv");
  EXPECT_EQ(train("a", "--pairs ../pairs.csv --epochs 1").status, 0);
  list.replace(list.rfind("validation"), 10, "training");
  write_bytes(folder_ / "pairs.csv", list);
  expect_refused("a", "--pairs ../pairs.csv --epochs 1", "names other pairs than the checkpoint");
  expect_refused("a", "--pairs ../pairs.csv --epochs 1 --validation 0",
                 "--validation is 0 but was not given");
}

TEST_F(Train, AFullDiskLeavesTheLastCheckpoint) {
  ASSERT_EQ(train("a", "--epochs 0.5").status, 0);
  const std::string before = made("a", "net.checkpoint.safetensors");
  const CommandResult result =
      run_shell(detail::concat("trap '' XFSZ; ulimit -f 8; (", command("a", "--epochs 2 --quiet"), ") 2>&1"));
  EXPECT_EQ(result.status, 1) << result.output;
  EXPECT_NE(result.output.find("net"), std::string::npos) << result.output;
  EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
  EXPECT_TRUE(made("a", "net.checkpoint.safetensors") == before);
  EXPECT_EQ(train("a", "--epochs 2").status, 0);
}

TEST_F(Train, ACorrectionNetworkLearnsResiduals) {
  ASSERT_EQ(train("a", "--epochs 0.5").status, 0);
  expect_refused("b", "--correction", "go together");
  const std::string options = "--correction --network ../a/net.safetensors --epochs 0.5";
  const CommandResult first = train("b", options);
  ASSERT_EQ(first.status, 0) << first.output;
  EXPECT_EQ(load_quicksilver(folder_ / "b" / "net.safetensors").description.role,
            QuicksilverRole::correction);
  std::string lessons;
  for (const auto& entry : fs::directory_iterator(folder_ / "momenta")) {
    if (entry.is_directory()) lessons = entry.path().filename().string();
  }
  EXPECT_TRUE(lessons.starts_with("correction-")) << lessons;
  EXPECT_TRUE(fs::exists(folder_ / "momenta" / lessons / (name_of(0) + ".safetensors")));
  expect_refused("c", "--correction --network ../b/net.safetensors", "is a correction network");
}

TEST_F(Train, StartsFromGivenWeightsAndConfigFiles) {
  ASSERT_EQ(train("a", "--epochs 0.5").status, 0);
  write_bytes(folder_ / "run.toml",
              "[train]\nquicksilver = { epochs = 0.5, initial = '../a/net.safetensors' }\n");
  const CommandResult result = train("b", "--config ../run.toml");
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_EQ(load_quicksilver(folder_ / "b" / "net.safetensors").description.notes.at("epochs").substr(0, 3),
            "0.5");
  expect_refused("c", "--initial ../pairs.csv", "pairs.csv");
}

}  // namespace
}  // namespace cinnabar::registration
