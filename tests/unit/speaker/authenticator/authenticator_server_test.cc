#include "speaker/authenticator/authenticator_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "kedge/v1/authenticator.grpc.pb.h"
#include "speaker/authenticator/authenticator_socket.h"
#include "tests/unit/speaker/access/idle_access_plane.h"

namespace kedge::speaker {
namespace {

using ::testing::HasSubstr;

class AuthenticatorServerTest : public ::testing::Test {
 protected:
  AuthenticatorServerTest() {
    std::string folder = (std::filesystem::temp_directory_path() / "kedge-authenticator-XXXXXX").string();
    folder_ = ::mkdtemp(folder.data());
    path_ = folder_ + "/socket";
    auto server = AuthenticatorServer::start(io_.get_executor(), plane_, path_);
    EXPECT_TRUE(server.ok()) << server.status();
    if (server.ok()) server_ = *std::move(server);
    stub_ = v1::Authenticator::NewStub(grpc::CreateChannel("unix:" + path_, grpc::InsecureChannelCredentials()));
  }
  ~AuthenticatorServerTest() override {
    server_.reset();
    io_.stop();
    thread_.join();
    std::filesystem::remove_all(folder_);
  }

  grpc::Status authorize(const std::string& interface, const std::string& mac, std::int64_t seconds = 0,
                         const std::string& identity = "alice") {
    v1::AuthorizeRequest request;
    request.set_interface(interface);
    request.set_link_layer_address(mac);
    request.set_identity(identity);
    if (seconds != 0) request.mutable_valid_for()->set_seconds(seconds);
    grpc::ClientContext context;
    v1::AuthorizeResponse response;
    return stub_->Authorize(&context, request, &response);
  }
  v1::ListStationsResponse list() {
    grpc::ClientContext context;
    v1::ListStationsResponse response;
    EXPECT_TRUE(stub_->ListStations(&context, {}, &response).ok());
    return response;
  }

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  AuthenticatingAccessPlane plane_{io_.get_executor(), {"access1"}, std::make_unique<testing::IdleAccessPlane>()};
  std::thread thread_{[this] { io_.run(); }};
  std::string folder_;
  std::string path_;
  std::unique_ptr<AuthenticatorServer> server_;
  std::unique_ptr<v1::Authenticator::Stub> stub_;
};

TEST_F(AuthenticatorServerTest, OnlyOwnerAndGroupMayOpenTheSocket) {
  struct stat made {};
  ASSERT_EQ(::stat(path_.c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 0777U, 0660U);
}

TEST_F(AuthenticatorServerTest, VouchesListsAndRevokes) {
  ASSERT_TRUE(authorize("access1", "02:00:5E:00:00:01", 3600).ok());
  const auto stations = list();
  ASSERT_EQ(stations.stations_size(), 1);
  EXPECT_EQ(stations.stations(0).link_layer_address(), "02:00:5e:00:00:01");
  EXPECT_EQ(stations.stations(0).identity(), "alice");
  EXPECT_GT(stations.stations(0).valid_for().seconds(), 3000);
  v1::RevokeRequest request;
  request.set_interface("access1");
  request.set_link_layer_address("02:00:5e:00:00:01");
  grpc::ClientContext context;
  v1::RevokeResponse response;
  EXPECT_TRUE(stub_->Revoke(&context, request, &response).ok());
  EXPECT_EQ(list().stations_size(), 0);
}

TEST_F(AuthenticatorServerTest, MistakesAreNamed) {
  struct Case {
    grpc::Status status;
    grpc::StatusCode code;
    std::string text;
  };
  for (const auto& [status, code, text] : {
           Case{authorize("uplink", "02:00:5e:00:00:01"), grpc::StatusCode::NOT_FOUND, "access1"},
           Case{authorize("access1", "02:00:5e"), grpc::StatusCode::INVALID_ARGUMENT, "link_layer_address"},
           Case{authorize("access1", "33:33:00:00:00:01"), grpc::StatusCode::INVALID_ARGUMENT, "unicast"},
           Case{authorize("access1", "02:00:5e:00:00:01", -1), grpc::StatusCode::INVALID_ARGUMENT, "valid_for"},
           Case{authorize("access1", "02:00:5e:00:00:01", 366LL * 86400 + 1), grpc::StatusCode::INVALID_ARGUMENT,
                "valid_for"},
           Case{authorize("access1", "02:00:5e:00:00:01", 0, std::string(254, 'a')), grpc::StatusCode::INVALID_ARGUMENT,
                "identity"},
       }) {
    EXPECT_EQ(status.error_code(), code) << text;
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
  EXPECT_EQ(list().stations_size(), 0);
}

TEST_F(AuthenticatorServerTest, ASocketThatIsLeftIsReplacedAndAPathThatCannotBeIsNamed) {
  const std::string left = folder_ + "/left";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  left.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ::close(socket);
  EXPECT_TRUE(AuthenticatorServer::start(io_.get_executor(), plane_, left).ok());
  auto second = AuthenticatorServer::start(io_.get_executor(), plane_, folder_ + "/nowhere/socket");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("/nowhere/socket"));
  EXPECT_EQ(AuthenticatorServer::start(io_.get_executor(), plane_, "relative").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(check_authenticator_socket("/" + std::string(200, 'x')).ok());
}

}  // namespace
}  // namespace kedge::speaker
