// What ITK makes of the files of a test. Transforms form a CompositeTransform: the last one given is applied
// to a point first.
//
// Resample an image:
//   itk_oracle warp MOVING REFERENCE OUTPUT linear|nearest TRANSFORM...
// Map the LPS points on standard input, one per line:
//   itk_oracle points TRANSFORM...
// Write a transform of a class (affine, euler, euler_zyx, versor, similarity, translation), parameters first
// and then the centre:
//   itk_oracle affine OUTPUT CLASS NUMBER...
// Write a displacement field of a fixed formula on the grid of an image:
//   itk_oracle field REFERENCE OUTPUT
#include <itkAffineTransform.h>
#include <itkCompositeTransform.h>
#include <itkDisplacementFieldTransform.h>
#include <itkEuler3DTransform.h>
#include <itkImageFileReader.h>
#include <itkImageFileWriter.h>
#include <itkImageRegionIteratorWithIndex.h>
#include <itkMatlabTransformIOFactory.h>
#include <itkNearestNeighborInterpolateImageFunction.h>
#include <itkNiftiImageIOFactory.h>
#include <itkResampleImageFilter.h>
#include <itkSimilarity3DTransform.h>
#include <itkTransformFileReader.h>
#include <itkTransformFileWriter.h>
#include <itkTranslationTransform.h>
#include <itkTxtTransformIOFactory.h>
#include <itkVersorRigid3DTransform.h>

#include <cmath>
#include <iostream>
#include <string>

using ImageType = itk::Image<float, 3>;
using VectorType = itk::Vector<float, 3>;
using FieldType = itk::Image<VectorType, 3>;
using TransformType = itk::Transform<double, 3, 3>;
using CompositeType = itk::CompositeTransform<double, 3>;

template <class Image>
typename Image::Pointer read(const std::string& path) {
  auto reader = itk::ImageFileReader<Image>::New();
  reader->SetFileName(path);
  reader->Update();
  return reader->GetOutput();
}

template <class Image>
void write(const Image* image, const std::string& path) {
  auto writer = itk::ImageFileWriter<Image>::New();
  writer->SetFileName(path);
  writer->SetInput(image);
  writer->Update();
}

TransformType::Pointer read_transform(const std::string& path) {
  if (path.find(".nii") != std::string::npos) {
    using DoubleField = itk::Image<itk::Vector<double, 3>, 3>;
    auto transform = itk::DisplacementFieldTransform<double, 3>::New();
    transform->SetDisplacementField(read<DoubleField>(path));
    return transform.GetPointer();
  }
  auto reader = itk::TransformFileReaderTemplate<double>::New();
  reader->SetFileName(path);
  reader->Update();
  return dynamic_cast<TransformType*>(reader->GetTransformList()->front().GetPointer());
}

CompositeType::Pointer read_chain(int first, int count, char** words) {
  auto chain = CompositeType::New();
  for (int i = first; i < count; ++i) chain->AddTransform(read_transform(words[i]));
  return chain;
}

int warp(int count, char** words) {
  auto filter = itk::ResampleImageFilter<ImageType, ImageType, double>::New();
  const auto reference = read<ImageType>(words[3]);
  filter->SetInput(read<ImageType>(words[2]));
  filter->SetReferenceImage(reference);
  filter->UseReferenceImageOn();
  filter->SetTransform(read_chain(6, count, words));
  filter->SetDefaultPixelValue(-1);
  if (std::string(words[5]) == "nearest") {
    filter->SetInterpolator(itk::NearestNeighborInterpolateImageFunction<ImageType, double>::New());
  }
  filter->Update();
  write<ImageType>(filter->GetOutput(), words[4]);
  return 0;
}

int points(int count, char** words) {
  const auto chain = read_chain(2, count, words);
  std::cout.precision(17);
  for (double x, y, z; std::cin >> x >> y >> z;) {
    const double values[3] = {x, y, z};
    const auto mapped = chain->TransformPoint(itk::Point<double, 3>(values));
    std::cout << mapped[0] << ' ' << mapped[1] << ' ' << mapped[2] << '\n';
  }
  return 0;
}

template <class Transform>
void save(Transform* transform, int first, int count, char** words) {
  const int size = static_cast<int>(transform->GetNumberOfParameters());
  typename Transform::ParametersType parameters(static_cast<unsigned>(size));
  for (int i = 0; i < size; ++i) parameters[static_cast<unsigned>(i)] = std::stod(words[first + i]);
  if (first + size + 3 <= count) {
    auto fixed = transform->GetFixedParameters();
    for (int i = 0; i < 3; ++i) fixed[static_cast<unsigned>(i)] = std::stod(words[first + size + i]);
    transform->SetFixedParameters(fixed);
  }
  transform->SetParameters(parameters);
  auto writer = itk::TransformFileWriterTemplate<double>::New();
  writer->SetInput(transform);
  writer->SetFileName(words[2]);
  writer->Update();
}

int affine(int count, char** words) {
  const std::string kind = words[3];
  if (kind == "affine") save(itk::AffineTransform<double, 3>::New().GetPointer(), 4, count, words);
  if (kind == "versor") save(itk::VersorRigid3DTransform<double>::New().GetPointer(), 4, count, words);
  if (kind == "similarity") save(itk::Similarity3DTransform<double>::New().GetPointer(), 4, count, words);
  if (kind == "translation") save(itk::TranslationTransform<double, 3>::New().GetPointer(), 4, count, words);
  if (kind == "euler" || kind == "euler_zyx") {
    auto transform = itk::Euler3DTransform<double>::New();
    transform->SetComputeZYX(kind == "euler_zyx");
    save(transform.GetPointer(), 4, count, words);
  }
  return 0;
}

int field(char** words) {
  const auto reference = read<ImageType>(words[2]);
  auto result = FieldType::New();
  result->CopyInformation(reference);
  result->SetRegions(reference->GetLargestPossibleRegion());
  result->Allocate();
  for (itk::ImageRegionIteratorWithIndex<FieldType> at(result, result->GetLargestPossibleRegion());
       !at.IsAtEnd(); ++at) {
    VectorType vector;
    for (unsigned c = 0; c < 3; ++c) {
      vector[c] =
          static_cast<float>(at.GetIndex()[0] + 10 * at.GetIndex()[1] + 100 * at.GetIndex()[2]) + 0.25f * c;
    }
    at.Set(vector);
  }
  write<FieldType>(result, words[3]);
  return 0;
}

int main(int count, char** words) {
  itk::NiftiImageIOFactory::RegisterOneFactory();
  itk::MatlabTransformIOFactory::RegisterOneFactory();
  itk::TxtTransformIOFactory::RegisterOneFactory();
  try {
    const std::string mode = count > 1 ? words[1] : "";
    if (mode == "warp" && count > 5) return warp(count, words);
    if (mode == "points") return points(count, words);
    if (mode == "affine" && count > 4) return affine(count, words);
    if (mode == "field" && count > 3) return field(words);
    std::cerr << "usage: see the head of itk_oracle.cpp\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
